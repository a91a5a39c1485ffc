package consumequeue_test

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/consumequeue"
	"github.com/pocketmq/mq/internal/coord"
	"github.com/pocketmq/mq/internal/vfs"
)

// modelQueue is a queue as it should be.
type modelQueue struct {
	name    coord.TopicID
	min     coord.Offset
	entries []consumequeue.Entry // from offset 0
}

func (m *modelQueue) end() coord.Offset { return coord.Offset(len(m.entries)) }

// advance mirrors Queue.Advance.
func (m *modelQueue) advance(end coord.Offset) {
	if end <= m.end() {
		return
	}
	if m.min == m.end() {
		m.min = end
	}
	m.entries = append(m.entries, make([]consumequeue.Entry, end-m.end())...)
}

// model drives a store and a few slices beside it.
type model struct {
	t    *testing.T
	rand *rand.Rand
	fsys *vfs.Mem
	s    *consumequeue.Store
	qs   []*modelQueue
	kept int64 // MaxKept

	// The last checkpoint, and what was patched since.
	states  map[coord.TopicID]consumequeue.State
	patched map[coord.TopicID]map[coord.Offset]bool
}

func (m *model) queue(q *modelQueue) *consumequeue.Queue { return m.s.Queue("t", q.name, 0) }

func (m *model) open() {
	var err error
	m.s, err = consumequeue.Open(m.fsys, root, consumequeue.Options{MaxUnflushed: 48 << 10, MaxKept: m.kept, MaxOpen: 2})
	require.NoError(m.t, err)
}

func (m *model) random() consumequeue.Entry {
	return consumequeue.Entry{Position: coord.Position(m.rand.Uint64()), Size: m.rand.Uint32(), Tag: m.rand.Uint64()}
}

// step does one thing to a random queue.
func (m *model) step() {
	q := m.qs[m.rand.IntN(len(m.qs))]
	switch dice := m.rand.IntN(100); {
	case dice < 30:
		for range m.rand.IntN(1 << m.rand.IntN(12)) {
			e := m.random()
			require.Equal(m.t, q.end(), m.queue(q).Append(e))
			q.entries = append(q.entries, e)
		}
	case dice < 40:
		m.appendAt(q)
	case dice < 60:
		m.read(q)
	case dice < 72:
		require.NoError(m.t, m.s.Flush())
	case dice < 80:
		m.patch(q)
	case dice < 86:
		m.trim(q)
	case dice < 94:
		m.checkpoint()
	case dice < 96:
		m.recover()
	case dice < 97:
		m.recreate(q)
	default:
		m.check(q)
	}
}

func (m *model) appendAt(q *modelQueue) {
	off := max(0, q.end()+coord.Offset(m.rand.IntN(2000))-1000)
	if m.rand.IntN(40) == 0 {
		off += coord.Offset(m.rand.IntN(consumequeue.FileEntries))
	}
	e := m.random()
	m.queue(q).AppendAt(off, e)
	if off >= q.end() {
		q.advance(off)
		q.entries = append(q.entries, e)
	}
}

func (m *model) read(q *modelQueue) {
	from := coord.Offset(m.rand.Int64N(int64(q.end()) + 2))
	dst := make([]consumequeue.Entry, m.rand.IntN(3000))
	n, err := m.queue(q).Read(from, dst)
	if from < q.min {
		require.ErrorIs(m.t, err, consumequeue.ErrTrimmed)
		return
	}
	require.NoError(m.t, err)
	want := q.entries[min(from, q.end()):]
	want = want[:min(len(want), len(dst))]
	require.True(m.t, slices.Equal(want, dst[:n]), "read %d from %d", len(dst), from)
}

func (m *model) patch(q *modelQueue) {
	if q.min == q.end() {
		return
	}
	off := q.min + coord.Offset(m.rand.Int64N(int64(q.end()-q.min)))
	e := m.random()
	require.NoError(m.t, m.queue(q).Patch(off, e))
	q.entries[off] = e
	if m.patched[q.name] == nil {
		m.patched[q.name] = make(map[coord.Offset]bool)
	}
	m.patched[q.name][off] = true
}

func (m *model) trim(q *modelQueue) {
	to := q.min + coord.Offset(m.rand.Int64N(int64(q.end()-q.min)+1))
	if m.rand.IntN(5) == 0 {
		to = q.end()
	}
	m.queue(q).Trim(to)
	q.min = max(q.min, to)
}

func (m *model) checkpoint() {
	states := make(map[coord.TopicID]consumequeue.State)
	for _, q := range m.qs {
		states[q.name] = m.queue(q).Capture()
	}
	require.NoError(m.t, m.s.Sync())
	m.states, m.patched = states, make(map[coord.TopicID]map[coord.Offset]bool)
	require.NoError(m.t, m.s.Sweep())
}

// recover opens the store again as after a crash: from the last checkpoint and
// a log that says all that happened since, and some of what was before.
func (m *model) recover() {
	require.NoError(m.t, m.s.Close())
	m.open()
	known := make(map[string]bool)
	for name := range m.states {
		known[consumequeue.Dir("t", name)] = true
	}
	require.NoError(m.t, m.s.SweepUnknown(func(dir string) bool { return known[dir] }))
	for _, q := range m.qs {
		have := m.queue(q)
		if st, ok := m.states[q.name]; ok {
			require.NoError(m.t, have.Restore(st))
			require.Equal(m.t, st.End, have.End())
		}
		// A patch of a file outlives the crash or not; the engine finds out when
		// the entry does not resolve, and patches again.
		for off := range m.patched[q.name] {
			if off >= have.Min() && off < have.End() {
				require.NoError(m.t, have.Patch(off, q.entries[off]))
			}
		}
		from := max(q.min, have.End()-coord.Offset(m.rand.IntN(100)))
		for off := from; off < q.end(); off++ {
			have.AppendAt(off, q.entries[off])
		}
		have.Advance(q.end())
		have.Trim(q.min)
	}
	m.states = maps.Clone(m.states)
}

// recreate deletes a topic and makes another one.
func (m *model) recreate(q *modelQueue) {
	m.s.Drop("t", q.name)
	*q = modelQueue{name: q.name + 1000}
	if m.rand.IntN(2) == 0 {
		start := consumequeue.FileEntries - coord.Offset(m.rand.IntN(20_000)) // soon in two files
		m.queue(q).Advance(start)
		q.advance(start)
	}
}

// check compares all of a queue.
func (m *model) check(q *modelQueue) {
	have := m.queue(q)
	require.Equal(m.t, q.min, have.Min())
	require.Equal(m.t, q.end(), have.End())
	require.True(m.t, slices.Equal(q.entries[q.min:], all(m.t, have)))
}

func TestModel(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	runs := 8
	if testing.Short() {
		runs = 3
	}
	for run := range runs {
		runModel(t, seed+uint64(run))
	}
}

func runModel(t *testing.T, seed uint64) {
	defer func() {
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	}()
	m := &model{
		t: t, rand: rand.New(rand.NewPCG(seed, 0)), fsys: newMem(),
		patched: make(map[coord.TopicID]map[coord.Offset]bool),
	}
	m.kept = []int64{0, 50 << 10, 1 << 20}[m.rand.IntN(3)]
	m.open()
	for name := range coord.TopicID(4) {
		m.qs = append(m.qs, &modelQueue{name: name})
	}
	for range 400 {
		m.step()
		require.GreaterOrEqual(t, m.s.Stats().Unflushed, int64(0))
		require.LessOrEqual(t, m.s.Stats().Kept, m.kept)
	}
	require.NoError(t, m.s.Flush())
	for _, q := range m.qs {
		m.check(q)
	}
	require.NoError(t, m.s.Close())
}
