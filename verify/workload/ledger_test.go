package workload

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq"
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

// some returns an acknowledged message of a topic.
func some(t *testing.T, l *Ledger, topic string) (place, message) {
	t.Helper()
	for _, q := range l.queueNames() {
		for i, m := range l.queues[q].messages {
			if q.Topic == topic && m.sent {
				return place{q, mq.Offset(i)}, m
			}
		}
	}
	t.Fatal("no message")
	return place{}, message{}
}

func (p place) words() string { return fmt.Sprintf("%s %d %d", p.queue.Topic, p.queue.ID, p.offset) }

// TestBrokenPromisesAreFound: each kind of lie, told to a ledger of a sound
// store, is noticed.
func TestBrokenPromisesAreFound(t *testing.T) {
	t.Parallel()
	const strange = "00000000000000000000000000000000000000ff"
	for _, lie := range []struct {
		name  string
		fault Fault
		lines func(t *testing.T, l *Ledger) []string
		count func(l *Ledger) int64
	}{
		{"a synced message is gone", PowerCut, func(*testing.T, *Ledger) []string {
			return []string{"sent s S 0 9999 " + strange + " 1 100"}
		}, func(l *Ledger) int64 { return l.Lost }},
		{"a written message is gone after a kill", Killed, func(*testing.T, *Ledger) []string {
			return []string{"sent w W 0 9999 " + strange + " 1 100"}
		}, func(l *Ledger) int64 { return l.Lost }},
		{"a written message is gone that a sync covered", PowerCut, func(*testing.T, *Ledger) []string {
			return []string{"sent w W 0 9999 " + strange + " 1 100", "sync 7", "synced 7"}
		}, func(l *Ledger) int64 { return l.Lost }},
		{"another body", Killed, func(t *testing.T, l *Ledger) []string {
			p, m := some(t, l, syncedTopic)
			l.message(p).size++
			l.unverified = append(l.unverified, p)
			return []string{"got g " + p.words() + fmt.Sprintf(" %x %d true", m.number, m.size)}
		}, func(l *Ledger) int64 { return l.Lost }},
		{"a body that nobody sent", Killed, func(t *testing.T, l *Ledger) []string {
			p, m := some(t, l, syncedTopic)
			return []string{"got g " + p.words() + fmt.Sprintf(" %x %d false", m.number, m.size)}
		}, func(l *Ledger) int64 { return l.Lost }},
		{"two messages at one place", Killed, func(t *testing.T, l *Ledger) []string {
			p, m := some(t, l, syncedTopic)
			return []string{fmt.Sprintf("sent s %s %s %x %d", p.words(), strange, m.number+1, m.size)}
		}, func(l *Ledger) int64 { return int64(len(l.Problems)) }},
		{"one id twice", Killed, func(t *testing.T, l *Ledger) []string {
			_, m := some(t, l, syncedTopic)
			return []string{fmt.Sprintf("sent s S 0 9999 %v 1 100", m.id)}
		}, func(l *Ledger) int64 { return int64(len(l.Problems)) }},
		{"an acknowledgement is gone", Killed, func(t *testing.T, l *Ledger) []string {
			p, m := some(t, l, syncedTopic)
			return []string{fmt.Sprintf("acked w other %s %x %d true", p.words(), m.number, m.size)}
		}, func(l *Ledger) int64 { return l.Again }},
		{"a synced acknowledgement is gone", PowerCut, func(t *testing.T, l *Ledger) []string {
			p, m := some(t, l, syncedTopic)
			return []string{fmt.Sprintf("acked s other %s %x %d true", p.words(), m.number, m.size)}
		}, func(l *Ledger) int64 { return l.Again }},
		{"delivered after its acknowledgement", Killed, func(t *testing.T, l *Ledger) []string {
			p, m := some(t, l, syncedTopic)
			line := fmt.Sprintf("%s %x %d true", p.words(), m.number, m.size)
			return []string{"acked w pull-synced " + line, "got pull-synced " + line}
		}, func(l *Ledger) int64 { return l.Again }},
		{"progress goes back", Killed, func(*testing.T, *Ledger) []string {
			return []string{"done push S 0 7", "done push S 0 6"}
		}, func(l *Ledger) int64 { return l.Again }},
		{"a topic is gone", PowerCut, func(*testing.T, *Ledger) []string {
			return []string{"topic Late39"}
		}, func(l *Ledger) int64 { return l.Lost }},
		{"it did not open", Killed, func(*testing.T, *Ledger) []string {
			return []string{"refused no"}
		}, func(l *Ledger) int64 { return l.Refused }},
	} {
		t.Run(lie.name, func(t *testing.T) {
			t.Parallel()
			l, dir := store(t, Config{LeaveOpen: true})
			tell(t, l, lie.lines(t, l)...)
			require.NoError(t, l.Check(t.Context(), dir, lie.fault))
			require.NotZero(t, lie.count(l))
			require.False(t, l.Sound())
		})
	}
}

// TestForgiven: what a power cut may take is no flaw.
func TestForgiven(t *testing.T) {
	t.Parallel()
	l, dir := store(t, Config{LeaveOpen: true})
	p, m := some(t, l, writtenTopic)
	tell(t, l,
		"sent w W 0 9999 00000000000000000000000000000000000000ff 1 100",
		fmt.Sprintf("acked w other %s %x %d true", p.words(), m.number, m.size),
		"done push S 0 2")
	require.NoError(t, l.Check(t.Context(), dir, PowerCut))
	require.True(t, l.Sound(), "%v", l.Problems)
	require.Equal(t, int64(1), l.Gone)
	tell(t, l, fmt.Sprintf("got other %s %x %d true", p.words(), m.number, m.size))
	require.True(t, l.Sound())
	require.Equal(t, int64(1), l.Repeated)
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
