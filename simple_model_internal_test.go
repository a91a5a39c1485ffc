package mq

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/internal/vfs"
)

// TestSimpleModel does random things to a group of simple consumers, with time
// going by, and compares every answer with what a few maps say it has to be.
func TestSimpleModel(t *testing.T) {
	t.Parallel()
	for _, ordered := range []bool{false, true} {
		for range 4 {
			seed := rand.Uint64()
			if given := flag.Lookup("seed").Value.(flag.Getter).Get().(uint64); given != 0 { // of the other model
				seed = given
			}
			synctest.Test(t, func(t *testing.T) {
				m := &simpleModel{T: t, rnd: rand.New(rand.NewPCG(seed, 0)), ordered: ordered, fs: vfs.NewMem(0)}
				m.most = m.rnd.IntN(2) * (1 + m.rnd.IntN(4))
				defer func() {
					if t.Failed() {
						t.Logf("ordered %v, seed %d; the last steps were %v", ordered, seed, m.log[max(0, len(m.log)-30):])
					}
				}()
				m.run(1500)
			})
		}
	}
}

type simpleModel struct {
	*testing.T
	rnd     *rand.Rand
	ordered bool
	most    int // attempts, 0 for no limit
	fs      *vfs.Mem
	b       *Broker
	p       *Producer
	members []*SimpleConsumer
	queues  [2][]*lent
	old     []*receiptOf // of all deliveries, good or not
	log     []string
}

// lent is a message and what the group has done with it.
type lent struct {
	key     string
	acked   bool
	attempt int        // deliveries so far, since the last reset
	out     bool       // delivered since the group had members last
	dead    bool       // and acked by that
	held    *receiptOf // the newest, nil if it ended
	until   time.Time  // of held
}

type receiptOf struct {
	message *Message
	of      *lent
}

// modelBound is small, so that it is met; in order nobody knows from outside how
// far a queue was read.
func (m *simpleModel) bound() int {
	if m.ordered {
		return 100000
	}
	return 25
}

func (m *simpleModel) run(steps int) {
	m.open()
	actions := []func(){
		m.send, m.send, m.send, m.receive, m.receive, m.receive, m.receive, m.ack, m.ack, m.ack, m.nack,
		m.change, m.pass, m.pass, m.join, m.leave, m.rarely(m.reset), m.rarely(m.crash),
	}
	for range steps {
		actions[m.rnd.IntN(len(actions))]()
		synctest.Wait()
		m.expire()
		m.bury()
		m.compare()
	}
	m.finish()
	require.NoError(m, m.b.Close())
}

func (m *simpleModel) rarely(do func()) func() {
	return func() {
		if m.rnd.IntN(20) == 0 {
			do()
		}
	}
}

func (m *simpleModel) note(format string, args ...any) {
	m.log = append(m.log, fmt.Sprintf(format, args...))
}

func (m *simpleModel) open() {
	m.b = openOn(m.T, m.fs, &Options{Durability: Written, DefaultQueues: len(m.queues), SegmentBytes: mib})
	var err error
	m.p, err = m.b.NewProducer(nil)
	require.NoError(m, err)
	m.members = nil
	m.join()
}

func (m *simpleModel) join() {
	if len(m.members) == 3 {
		return
	}
	c, err := m.b.NewSimpleConsumer("G", &SimpleOptions{Ordered: m.ordered, PrefetchMessages: m.bound(), MaxAttempts: cmp.Or(m.most, -1)})
	require.NoError(m, err)
	require.NoError(m, c.Subscribe("T", All))
	m.members = append(m.members, c)
	m.note("join")
}

func (m *simpleModel) member() *SimpleConsumer { return m.members[m.rnd.IntN(len(m.members))] }

// leave also takes the last one, sometimes: then all receipts end.
func (m *simpleModel) leave() {
	at := m.rnd.IntN(len(m.members))
	require.NoError(m, m.members[at].Close())
	m.members = slices.Delete(m.members, at, at+1)
	m.note("leave")
	if len(m.members) == 0 {
		m.forget()
		m.join()
	}
}

// crash goes on with what kill -9 leaves.
func (m *simpleModel) crash() {
	left := m.fs.Clone()
	require.NoError(m, m.b.Close())
	m.note("crash")
	m.fs = left
	m.forget()
	m.open()
}

func (m *simpleModel) forget() {
	for _, q := range m.queues {
		for _, l := range q {
			l.held, l.out = nil, false
		}
	}
}

func (m *simpleModel) reset() {
	q := m.rnd.IntN(len(m.queues))
	to := m.rnd.IntN(len(m.queues[q]) + 1)
	require.NoError(m, m.b.ResetOffset("G", "T", AtOffset(Queue{"T", QueueID(q)}, Offset(to))))
	m.note("reset %d to %d", q, to)
	m.forget()
	for off, l := range m.queues[q] {
		l.acked, l.dead = off < to, false
	}
	for _, q := range m.queues {
		for _, l := range q {
			l.attempt = 0
		}
	}
}

func (m *simpleModel) send() {
	for range 1 + m.rnd.IntN(4) {
		key := fmt.Sprint(m.rnd.IntN(6))
		r, err := m.p.Send(context.Background(), &Message{Topic: "T", ShardingKey: key})
		require.NoError(m, err)
		require.Len(m, m.queues[r.Queue], int(r.Offset))
		m.queues[r.Queue] = append(m.queues[r.Queue], &lent{key: key})
	}
}

// expire ends the receipts whose time is up.
func (m *simpleModel) expire() {
	for _, q := range m.queues {
		for _, l := range q {
			if l.held != nil && !l.until.After(time.Now()) {
				l.held = nil
			}
		}
	}
}

// spent reports whether the message is made a dead letter when somebody asks.
func (m *simpleModel) spent(l *lent) bool {
	return !l.acked && l.held == nil && m.most > 0 && l.attempt >= m.most
}

// bury notes which messages became dead letters meanwhile.
func (m *simpleModel) bury() {
	var ids []MessageID
	for letter, err := range m.b.DeadLetters("G") {
		if errors.Is(err, ErrGroupNotFound) {
			return
		}
		require.NoError(m, err)
		l := m.queues[letter.Queue][letter.Offset]
		require.True(m, m.spent(l), "%d:%d after %d attempts", letter.Queue, letter.Offset, l.attempt)
		require.Equal(m, m.most, letter.Origin.Attempts)
		l.acked, l.dead = true, true
		ids = append(ids, letter.ID)
		m.note("%d:%d dies", letter.Queue, letter.Offset)
	}
	if len(ids) > 0 {
		purged, err := m.b.PurgeDeadLetters("G", ids...)
		require.NoError(m, err)
		require.Len(m, ids, purged)
	}
}

// finish receives until there is nothing left but dead letters and what was
// acknowledged.
func (m *simpleModel) finish() {
	for range 100000 {
		<-time.After(5 * time.Second)
		m.expire()
		m.receive()
		m.bury()
		m.compare()
		left := 0
		for _, q := range m.queues {
			for _, l := range q {
				if l.held != nil {
					require.NoError(m, m.member().Ack(context.Background(), l.held.message))
					l.acked, l.held = true, nil
				} else if !l.acked {
					left++
				}
			}
		}
		if left == 0 {
			return
		}
	}
	require.Fail(m, "there is always something left")
}

// owed says which messages of the queue may be handed out now.
func (m *simpleModel) owed(q []*lent) (offsets []Offset) {
	out, blocked := 0, map[string]bool{}
	for _, l := range q {
		if !l.acked && l.out && !m.spent(l) {
			out++
		}
	}
	for off, l := range q {
		if l.acked || m.spent(l) {
			continue
		}
		if l.held == nil && !blocked[l.key] && (l.out || out < m.bound()) {
			offsets = append(offsets, Offset(off))
			if !l.out {
				out++
			}
		}
		blocked[l.key] = m.ordered
	}
	return offsets
}

func (m *simpleModel) receive() {
	var owed [len(m.queues)][]Offset
	any := false
	for q := range m.queues {
		owed[q] = m.owed(m.queues[q])
		any = any || len(owed[q]) > 0
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Microsecond)
	defer cancel()
	invisible := time.Duration(1+m.rnd.IntN(2000)) * time.Millisecond
	ms, err := m.member().Receive(ctx, 1+m.rnd.IntN(12), invisible)
	if !any {
		require.ErrorIs(m, err, context.DeadlineExceeded, "%d messages nobody is owed", len(ms))
		return
	}
	require.NoError(m, err, "owed: %v", owed)
	for _, msg := range ms {
		l := m.queues[msg.Queue][msg.Offset]
		m.note("%d:%d for %v", msg.Queue, msg.Offset, invisible)
		require.Contains(m, owed[msg.Queue], msg.Offset)
		require.Equal(m, l.key, msg.ShardingKey)
		require.Nil(m, l.held)
		l.attempt++
		require.Equal(m, l.attempt, msg.Attempt)
		l.out = true
		l.held, l.until = &receiptOf{msg, l}, time.Now().Add(invisible)
		m.old = append(m.old, l.held)
	}
}

// some picks receipts: of late mostly, and good or not.
func (m *simpleModel) some() (picked []*receiptOf, ms []*Message) {
	for range m.rnd.IntN(8) {
		back := 1 + m.rnd.IntN(min(60, len(m.old)+1))
		if back > len(m.old) {
			continue
		}
		r := m.old[len(m.old)-back]
		if !slices.Contains(picked, r) {
			picked, ms = append(picked, r), append(ms, r.message)
		}
	}
	return picked, ms
}

// judge compares what a call said with which receipts were good.
func (m *simpleModel) judge(picked []*receiptOf, err error, good func(*lent)) {
	bad := 0
	for _, r := range picked {
		switch {
		case !m.ours(r):
			require.ErrorIs(m, err, ErrNotAssigned)
			return
		case r.of.held != r:
			bad++
		}
	}
	if bad > 0 {
		require.ErrorIs(m, err, ErrReceiptExpired)
		require.ErrorContains(m, err, fmt.Sprintf("%d of %d", bad, len(picked)))
	} else {
		require.NoError(m, err)
	}
	for _, r := range picked {
		if r.of.held == r {
			good(r.of)
		}
	}
}

// ours reports whether r is of the broker that is open now.
func (m *simpleModel) ours(r *receiptOf) bool { return r.message.origin.cursor.group.b == m.b }

func (m *simpleModel) ack() {
	picked, ms := m.some()
	m.judge(picked, m.member().Ack(context.Background(), ms...), func(l *lent) { l.acked, l.held = true, nil })
}

func (m *simpleModel) nack() {
	picked, ms := m.some()
	m.judge(picked, m.member().Nack(context.Background(), ms...), func(l *lent) { l.held = nil })
}

func (m *simpleModel) change() {
	picked, _ := m.some()
	for _, r := range picked {
		d := time.Duration(1+m.rnd.IntN(3000)) * time.Millisecond
		err := m.member().ChangeInvisible(context.Background(), r.message, d)
		m.judge([]*receiptOf{r}, err, func(l *lent) { l.until = time.Now().Add(d) })
	}
}

func (m *simpleModel) pass() {
	<-time.After(time.Duration(m.rnd.IntN(1000)) * time.Millisecond)
}

// compare checks what can be asked from outside.
func (m *simpleModel) compare() {
	invisible, open := int64(0), int64(0)
	for _, q := range m.queues {
		for _, l := range q {
			if !l.acked {
				open++
			}
			if l.held != nil {
				invisible++
			}
		}
	}
	require.Equal(m, invisible, m.b.Stats().Invisible)
	total, _, err := m.b.Lag("G")
	if errors.Is(err, ErrGroupNotFound) {
		total = open
	}
	require.Equal(m, open, total)
}
