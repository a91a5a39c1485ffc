package workload

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/internal/history"
)

func TestMain(m *testing.M) {
	Main()
	os.Exit(m.Run())
}

// store is one that a fixed workload has worked on, and the ledger of it.
func store(t *testing.T, c Config) (*Ledger, string) {
	t.Helper()
	l := NewLedger()
	c.Dir, c.Seed, c.Steps = filepath.Join(t.TempDir(), "store"), 1, 40
	p, err := Start(t.Context(), c, l)
	require.NoError(t, err)
	end, err := p.Wait()
	require.NoError(t, err)
	require.Zero(t, end.State.ExitCode(), end.Complaint)
	require.Empty(t, l.Problems)
	require.NotZero(t, l.Acknowledged)
	return l, c.Dir
}

func TestSoundStore(t *testing.T) {
	t.Parallel()
	for _, leave := range []bool{false, true} {
		for _, fault := range []Fault{Killed, PowerCut} {
			l, dir := store(t, Config{LeaveOpen: leave})
			require.NoError(t, l.Check(t.Context(), dir, fault))
			require.NoError(t, l.Finish(t.Context(), dir, fault))
			require.True(t, l.Sound(), "%v", l.Problems)
		}
	}
}

// tell enters lines as if the process had said them.
func tell(t *testing.T, l *Ledger, lines ...string) {
	t.Helper()
	require.NoError(t, l.hearAll(strings.NewReader(strings.Join(lines, "\n")+"\n"), func() {}))
}

// known is an acknowledged message, in the words of the log.
type known struct {
	topic  string
	queue  int
	offset int64
	number string
	size   uint64
}

// some returns an acknowledged message of a topic, one of its first.
func some(t *testing.T, l *Ledger, topic string) known {
	t.Helper()
	sends := map[string]history.Op{}
	for _, o := range l.History() {
		switch {
		case o.Kind == history.OpSend && o.Topic == topic:
			sends[o.ID] = o
		case o.Kind == history.OpSent && sends[o.ID].ID != "":
			return known{topic, o.Queue, o.Offset, o.ID, sends[o.ID].Hash}
		}
	}
	t.Fatal("no message")
	return known{}
}

func (k known) place() string { return fmt.Sprintf("%s %d %d", k.topic, k.queue, k.offset) }
func (k known) got(group string) string {
	return fmt.Sprintf("got %s %s %s %d true", group, k.place(), k.number, k.size)
}

func (k known) acked(promise, group string) []string {
	return []string{fmt.Sprintf("acking lie %s %s %s", promise, group, k.place()), "acked lie"}
}

const strange = "00000000000000000000000000000000000000ff"

// TestBrokenPromisesAreFound: each kind of lie, told to a ledger of a sound
// store, is noticed, and under its name.
func TestBrokenPromisesAreFound(t *testing.T) {
	t.Parallel()
	for _, lie := range []struct {
		name  string
		fault Fault
		lines func(t *testing.T, l *Ledger) []string
		count func(l *Ledger) int64
		class history.Class // empty: a history has no words for it
	}{
		{"a synced message is gone", PowerCut, func(*testing.T, *Ledger) []string {
			return []string{"try S aaa1 100", "sent s S 0 9999 " + strange + " aaa1"}
		}, lost, history.LostWrite},
		{"a written message is gone after a kill", Killed, func(*testing.T, *Ledger) []string {
			return []string{"try W aaa1 100", "sent w W 0 9999 " + strange + " aaa1"}
		}, lost, history.LostWrite},
		{"a written message is gone that a sync covered", PowerCut, func(*testing.T, *Ledger) []string {
			return []string{"try W aaa1 100", "sent w W 0 9999 " + strange + " aaa1", "sync 7", "synced 7"}
		}, lost, history.LostWrite},
		{"a written message is gone that was in a synced batch", PowerCut, func(*testing.T, *Ledger) []string {
			return []string{"try W aaa1 100", "sent s W 0 9999 " + strange + " aaa1"}
		}, lost, history.LostWrite},
		{"a message is gone that was sent without power", PowerCut, func(*testing.T, *Ledger) []string {
			return []string{cutMark + "try S aaa1 100", "sent s S 0 9999 " + strange + " aaa1"}
		}, lost, history.LostWrite},
		{"what was delivered as synced is gone", PowerCut, func(*testing.T, *Ledger) []string {
			return []string{"try S aaa1 100", "got pull S 0 9999 aaa1 100 true", "sent s S 0 9999 " + strange + " aaa1"}
		}, lost, history.LostWrite},
		{"another body", Killed, func(t *testing.T, l *Ledger) []string {
			k := some(t, l, syncedTopic)
			k.size++
			return []string{k.got("g")}
		}, lost, history.WrongBytes},
		{"a body that nobody sent", Killed, func(t *testing.T, l *Ledger) []string {
			return []string{strings.Replace(some(t, l, syncedTopic).got("g"), "true", "false", 1)}
		}, lost, history.WrongBytes},
		{"a message that nobody sent", Killed, func(*testing.T, *Ledger) []string {
			return []string{"got g S 0 0 77 100 true"}
		}, problems, history.AbortedRead},
		{"a refused message is delivered", Killed, func(*testing.T, *Ledger) []string {
			return []string{"try S aaa1 100", "unsent aaa1", "got g S 0 9999 aaa1 100 true"}
		}, problems, history.AbortedRead},
		{"two messages at one place", Killed, func(t *testing.T, l *Ledger) []string {
			k := some(t, l, syncedTopic)
			return []string{"try S aaa1 100", fmt.Sprintf("sent s %s %s aaa1", k.place(), strange)}
		}, problems, history.InconsistentOffsets},
		{"one message at two places", Killed, func(t *testing.T, l *Ledger) []string {
			k := some(t, l, syncedTopic)
			k.offset += 5000
			return []string{k.got("g")}
		}, problems, history.DuplicateOffset},
		{"one id twice", Killed, func(t *testing.T, l *Ledger) []string {
			number, err := strconv.ParseUint(some(t, l, syncedTopic).number, 16, 64)
			require.NoError(t, err)
			return []string{"try S aaa1 100", fmt.Sprintf("sent s S 0 9999 %v aaa1", l.ids[number])}
		}, problems, history.Unseen},
		{"an acknowledgement is gone", Killed, func(t *testing.T, l *Ledger) []string {
			return some(t, l, syncedTopic).acked("w", "other")
		}, again, history.DeliveredAgain},
		{"a synced acknowledgement is gone", PowerCut, func(t *testing.T, l *Ledger) []string {
			return some(t, l, syncedTopic).acked("s", "other")
		}, again, history.DeliveredAgain},
		{"an acknowledgement is gone that a sync covered", PowerCut, func(t *testing.T, l *Ledger) []string {
			return append(some(t, l, syncedTopic).acked("w", "other"), "sync 7", "synced 7")
		}, again, history.DeliveredAgain},
		{"delivered after its acknowledgement", Killed, func(t *testing.T, l *Ledger) []string {
			k := some(t, l, syncedTopic)
			return append(k.acked("w", "other"), "polling other", k.got("other"))
		}, again, history.DeliveredAgain},
		{"progress goes back", Killed, func(*testing.T, *Ledger) []string {
			return []string{"done push S 0 2", "done push S 0 1"}
		}, again, history.DeliveredAgain},
		{"progress is gone", Killed, func(*testing.T, *Ledger) []string {
			return []string{"done push S 0 2"}
		}, again, history.DeliveredAgain},
		{"progress is gone that a sync covered", PowerCut, func(*testing.T, *Ledger) []string {
			return []string{"done push S 0 2", "sync 7", "synced 7"}
		}, again, history.DeliveredAgain},
		{"polled backwards", Killed, func(t *testing.T, l *Ledger) []string {
			k := some(t, l, syncedTopic)
			return []string{k.got("g"), k.got("g")}
		}, problems, history.NonMonotonicPoll},
		{"polled past a message", Killed, func(t *testing.T, l *Ledger) []string {
			return []string{
				"try T aaa1 50", "sent s T 0 0 " + strange + " aaa1", "try T aaa2 50", "sent s T 0 1 " + strange[1:] + "1 aaa2",
				"try T aaa3 50", "sent s T 0 2 " + strange[1:] + "2 aaa3", "got g T 0 0 aaa1 50 true", "got g T 0 2 aaa3 50 true",
			}
		}, problems, history.SkippedPoll},
		{"sent before what was there", Killed, func(*testing.T, *Ledger) []string {
			return []string{"try T aaa1 50", "sent s T 0 1 " + strange + " aaa1", "try T aaa2 50", "sent s T 0 0 " + strange[1:] + "1 aaa2"}
		}, problems, history.NonMonotonicSend},
		{"a group never gets a message", Killed, func(*testing.T, *Ledger) []string {
			return []string{"try S aaa1 100", "got pull S 0 9999 aaa1 100 true"}
		}, lost, history.Unseen},
		{"a call ends that did not begin", Killed, func(*testing.T, *Ledger) []string {
			return []string{"synced 9"}
		}, problems, ""},
		{"a topic is gone", PowerCut, func(*testing.T, *Ledger) []string {
			return []string{"topic Late39"}
		}, lost, ""},
		{"it did not open", Killed, func(*testing.T, *Ledger) []string {
			return []string{"refused no"}
		}, func(l *Ledger) int64 { return l.Refused }, ""},
	} {
		t.Run(lie.name, func(t *testing.T) {
			t.Parallel()
			l, dir := store(t, Config{LeaveOpen: true})
			tell(t, l, lie.lines(t, l)...)
			require.NoError(t, l.Finish(t.Context(), dir, lie.fault))
			require.NotZero(t, lie.count(l))
			require.False(t, l.Sound())
			if lie.class != "" {
				require.NotZero(t, l.judge.Report().Counts[lie.class], "%v", l.Problems)
			} else {
				_, errs := l.Judged()
				require.Zero(t, errs, "%v", l.Problems)
			}
		})
	}
}

func lost(l *Ledger) int64     { return l.Lost }
func again(l *Ledger) int64    { return l.Again }
func problems(l *Ledger) int64 { return int64(len(l.Problems)) }

// TestForgiven: what a power cut may take is no flaw.
func TestForgiven(t *testing.T) {
	t.Parallel()
	l, dir := store(t, Config{LeaveOpen: true})
	k := some(t, l, writtenTopic)
	tell(t, l, "try W aaa1 100", "sent w W 0 9999 "+strange+" aaa1")
	tell(t, l, append(k.acked("w", "other"), "done push S 0 2")...)
	require.NoError(t, l.Check(t.Context(), dir, PowerCut))
	require.True(t, l.Sound(), "%v", l.Problems)
	require.Equal(t, int64(1), l.Gone)
	tell(t, l, k.got("other"))
	require.True(t, l.Sound(), "%v", l.Problems)
	require.Equal(t, int64(1), l.Repeated)
}

// TestUnderWay: what was under way when the power went has no promise.
func TestUnderWay(t *testing.T) {
	t.Parallel()
	l, dir := store(t, Config{LeaveOpen: true})
	k := some(t, l, syncedTopic)
	acked := k.acked("s", "other")
	tell(t, l, "try S aaa1 100", "sync 7", acked[0],
		cutMark+"sent s S 0 9999 "+strange+" aaa1", "got pull S 0 9999 aaa1 100 true", "synced 7", acked[1])
	require.NoError(t, l.Finish(t.Context(), dir, PowerCut))
	require.True(t, l.Sound(), "%v", l.Problems)
}

// TestLinearize: a queue that no list explains is found.
func TestLinearize(t *testing.T) {
	t.Parallel()
	l := NewLedger()
	tell(t, l, "try Late0 1 50", "sent s Late0 0 0 "+strange+" 1", "got pull Late0 0 0 1 50 true")
	require.Equal(t, queues, l.Linearize(9, time.Minute))
	tell(t, l, "try Late0 2 50", "sent s Late0 0 9 "+strange[1:]+"1 2") // a gap
	require.True(t, l.Sound(), "%v", l.Problems)
	require.Equal(t, queues-1, l.Linearize(9, time.Minute))
	require.False(t, l.Sound())
}

// TestLostStoreIsNoticed: a store that was emptied opens, and everything is lost.
func TestLostStoreIsNoticed(t *testing.T) {
	t.Parallel()
	l, dir := store(t, Config{LeaveOpen: true})
	require.NoError(t, os.RemoveAll(dir))
	require.NoError(t, l.Check(t.Context(), dir, PowerCut))
	require.NotZero(t, l.Lost)
}

func TestBodies(t *testing.T) {
	t.Parallel()
	b := appendBody(nil, 77, 100)
	require.Len(t, b, 100)
	number, whole := readBody(b)
	require.True(t, whole)
	require.EqualValues(t, 77, number)
	for i := range b {
		b[i] ^= 1
		if _, whole := readBody(b); whole {
			t.Fatalf("byte %d does not matter", i)
		}
		b[i] ^= 1
	}
}
