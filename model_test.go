package mq_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq"
	"github.com/pocketmq/mq/mqtest"
)

var (
	modelSeed  = flag.Uint64("seed", 0, "of the model test: the one that failed, to see it fail again; 0 is a new one")
	modelLog   = flag.Int("log", 60, "lines of the model test's log, when it fails")
	modelSteps = flag.Int("steps", 1500, "operations of the model test, in each mode")
)

// TestModel does random things to a broker and to a reference of Go maps, and
// compares them all the way: what is delivered, where everything lies, what is
// left after closing, and what a copy of the files holds, which is what kill -9
// would leave.
func TestModel(t *testing.T) {
	t.Parallel()
	small := mq.Options{SegmentBytes: 1 << 20, SyncEvery: 5 * time.Millisecond, Durability: mq.Written, Retention: mq.Retention{Age: -1}}
	portable, bounded, memory := small, small, small
	portable.DisableMmap = true
	bounded.Retention.MaxBytes = 5 << 20
	memory.Retention.MaxBytes = 5 << 20
	for name, options := range map[string]mq.Options{
		"mapped": small, "portable": portable, "bounded": bounded, "memory": memory,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seed := *modelSeed
			if seed == 0 {
				seed = rand.Uint64()
			}
			m := &model{
				T: t, rnd: rand.New(rand.NewPCG(seed, 0)), opts: options, memory: name == "memory",
				seed: seed, topics: map[string]*refTopic{}, groups: map[string]*refGroup{}, ids: map[mq.MessageID]bool{},
				waiting: map[mq.MessageID]*refWaiting{},
			}
			defer func() {
				if t.Failed() {
					t.Logf("go test -run '%s' -seed %d -steps %d; the last steps were\n%s", t.Name(), seed, *modelSteps, strings.Join(m.log, "\n"))
				}
			}()
			m.run(*modelSteps)
		})
	}
}

// model is the reference, and the broker beside it.
type model struct {
	*testing.T
	rnd    *rand.Rand
	opts   mq.Options
	memory bool
	dir    string
	b      *mq.Broker
	p      *mq.Producer
	log    []string

	topics  map[string]*refTopic
	groups  map[string]*refGroup // by name/instance
	ids     map[mq.MessageID]bool
	waiting map[mq.MessageID]*refWaiting
	seed    uint64
	stores  int // copies made

	refused int // by a full store
	isFull  bool
	made    int // topics ever, for their generations
}

type refTopic struct {
	name       string
	born       int // tells it from others of that name
	durability mq.Durability
	queues     [][]*refMessage // by offset
}

type refMessage struct {
	id   mq.MessageID
	sent *mq.Message
}

// refGroup is a group, or one broadcasting member of it.
type refGroup struct {
	name, instance string
	members        []*refMember
	subs           map[string]*refSub // by topic; survive members
	out            []refOut
}

type refMember struct {
	*mq.PullConsumer
	from   mq.Whence
	topics []string
}

// refOut is a message that was polled and not committed.
type refOut struct {
	m   *mq.Message
	sub *refSub
	gen int
}

type refSub struct {
	topic  *refTopic
	gen    int // of the start or reset it counts from
	filter []string
	queues map[mq.QueueID]*refCursor
}

// What a group is known to have done with an offset. What a filter skips is
// acknowledged sooner or later: until the group is asked nobody knows.
const (
	refOpen = iota
	refDone
	refMaybe
)

type refCursor struct {
	state  []byte    // by offset; beyond its end: refOpen
	held   mq.Offset // from here on nothing may be dropped that is open
	owner  string
	next   mq.Offset
	passed []byte // state at the time the cursor began
	sought bool   // by Seek: also what was committed comes again
	polled []bool // by offset: Poll went past it since then
	paused bool
}

func (c *refCursor) get(off mq.Offset) byte { return stateOf(c.state, off) }

func stateOf(states []byte, off mq.Offset) byte {
	if int(off) < len(states) {
		return states[off]
	}
	return refOpen
}

func (c *refCursor) set(off mq.Offset, to byte) {
	for int(off) >= len(c.state) {
		c.state = append(c.state, refOpen)
	}
	c.state[off] = to
}

// maybe notes that off may have been skipped.
func (c *refCursor) maybe(off mq.Offset) {
	if c.get(off) == refOpen {
		c.set(off, refMaybe)
	}
}

// restart makes off the first open offset, in a queue of so many messages.
func (c *refCursor) restart(off mq.Offset, end int) {
	c.state = bytes.Repeat([]byte{refDone}, int(off))
	c.held = mq.Offset(end)
	c.rewind()
}

// went notes that Poll went past off.
func (c *refCursor) went(off mq.Offset) {
	for int(off) >= len(c.polled) {
		c.polled = append(c.polled, false)
	}
	c.polled[off] = true
}

func (c *refCursor) rewind() {
	c.passed, c.next, c.polled, c.sought = slices.Clone(c.state), 0, nil, false
}

// late notes that off was committed: if the cursor has yet to get there, because
// the queue has moved since it was polled, it does not come again.
func (c *refCursor) late(off mq.Offset) {
	if off < c.next || c.sought {
		return
	}
	for int(off) >= len(c.passed) {
		c.passed = append(c.passed, refOpen)
	}
	c.passed[off] = refDone
}

func (s *refSub) cursor(q mq.QueueID) *refCursor {
	if s.queues[q] == nil {
		s.queues[q] = &refCursor{}
	}
	return s.queues[q]
}

func (s *refSub) wants(m *refMessage) bool {
	return len(s.filter) == 0 || slices.Contains(s.filter, m.sent.Tag)
}

func (s *refSub) mqFilter() mq.Filter { return filterOf(s.filter) }

// filterOf wants these tags: one by the index, two by a condition.
func filterOf(tags []string) mq.Filter {
	if len(tags) < 2 {
		return mq.Tags(tags...)
	}
	return mq.SQL("TAGS IN ('" + strings.Join(tags, "', '") + "')")
}

var modelTags = []string{"", "a", "b", "c"}

func (m *model) run(steps int) {
	m.open(m.TempDir())
	actions := []struct {
		weight int
		name   string
		do     func()
	}{
		{30, "send", m.send}, {8, "batch", m.sendBatch},
		{3, "delayed", m.sendDelayed}, {4, "to wait", m.sendToWait}, {2, "recall", m.recall},
		{25, "poll", m.poll}, {12, "commit some", m.commitSome}, {6, "commit all", m.commitAll},
		{2, "seek", m.seek}, {2, "pause", m.pause}, {2, "reset", m.reset}, {1, "resubscribe", m.resubscribe},
		{3, "join", m.join}, {2, "leave", m.leave},
		{2, "create topic", m.createTopic}, {1, "update topic", m.updateTopic}, {1, "delete topic", m.deleteTopic},
		{1, "delete group", m.deleteGroup}, {1, "reopen", m.reopen}, {1, "crash", m.crash},
	}
	total := 0
	for _, a := range actions {
		total += a.weight
	}
	for step := range steps {
		n := m.rnd.IntN(total)
		for _, a := range actions {
			if n -= a.weight; n < 0 {
				m.note("%d: %s", step, a.name)
				a.do()
				break
			}
		}
		if m.Failed() {
			return
		}
		if m.isFull {
			m.makeRoom()
		}
	}
	m.drain()
	m.compare()
	m.Logf("seed %d: %d messages, %d refused by a full store, %d stores; at the end %+v", m.seed, len(m.ids), m.refused, m.stores, m.b.Stats())
	m.close()
}

func (m *model) note(format string, args ...any) {
	m.log = append(m.log, fmt.Sprintf(format, args...))
	if len(m.log) > *modelLog {
		m.log = m.log[1:]
	}
}

// ---- the broker's life

func (m *model) open(dir string) {
	m.dir = dir
	if m.memory {
		m.b = mqtest.OpenMemory(m.T, &m.opts)
	} else {
		m.b = mqtest.OpenDir(m.T, dir, &m.opts)
	}
	p, err := m.b.NewProducer(nil)
	require.NoError(m, err)
	m.p = p
}

// close ends the broker, and with it the members.
func (m *model) close() {
	require.NoError(m, m.b.Close())
	m.forgetMembers()
}

func (m *model) forgetMembers() {
	for _, g := range m.groups {
		g.members, g.out = nil, nil
		for _, sub := range g.subs {
			for q, c := range sub.queues {
				m.mayHavePassed(sub, q, c)
				c.rewind()
				c.owner, c.paused = "", false
			}
		}
	}
}

func (m *model) reopen() {
	if m.memory || m.rnd.IntN(4) > 0 {
		return
	}
	m.close()
	m.open(m.dir)
	require.True(m, m.b.Recovery().Clean)
	require.Empty(m, m.b.Recovery().Corrupt)
	m.compare()
}

// crash opens a copy of the files of the open broker, and goes on with the copy.
func (m *model) crash() {
	if m.memory || m.rnd.IntN(4) > 0 {
		return
	}
	dir := filepath.Join(m.TempDir(), "copy")
	copyStore(m, m.dir, dir)
	m.close()
	require.NoError(m, os.RemoveAll(m.dir))
	m.stores++
	m.open(dir)
	require.False(m, m.b.Recovery().Clean)
	require.Empty(m, m.b.Recovery().Corrupt)
	require.Empty(m, m.b.Recovery().Cut)
	m.compare()
}

// copyStore copies the files of a broker that may be open, if nothing is sent
// or committed meanwhile. The log comes last: what the engine does on its own
// then leaves a log that is newer than the checkpoints, as a crash would.
func copyStore(t testing.TB, from, to string) {
	t.Helper()
	for {
		err := os.MkdirAll(to, 0o700)
		for _, part := range []string{"journal", "consumequeue", "index", "timer", "commitlog"} {
			err = errors.Join(err, copyTree(filepath.Join(from, part), filepath.Join(to, part)))
		}
		if err == nil {
			return
		}
		if !errors.Is(err, fs.ErrNotExist) { // removed while it was copied: again
			require.NoError(t, err)
		}
		require.NoError(t, os.RemoveAll(to))
	}
}

func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, name)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		if d.IsDir() {
			return os.MkdirAll(target, 0o700)
		}
		return copyFile(name, target)
	})
}

// copyFile copies what is not zero: preallocated files are mostly holes.
func copyFile(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.Create(to)
	if err != nil {
		return err
	}
	defer dst.Close()
	var buf, zero [64 << 10]byte
	for off := int64(0); ; {
		n, err := io.ReadFull(src, buf[:])
		if n > 0 && !bytes.Equal(buf[:n], zero[:n]) {
			if _, err := dst.WriteAt(buf[:n], off); err != nil {
				return err
			}
		}
		off += int64(n)
		switch {
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			return dst.Truncate(off)
		case err != nil:
			return err
		}
	}
}

// ---- topics and sends

func (m *model) topicName() string { return fmt.Sprintf("T%d", m.rnd.IntN(5)) }

func (m *model) aTopic() *refTopic {
	if len(m.topics) == 0 {
		return nil
	}
	names := slices.Sorted(maps.Keys(m.topics))
	return m.topics[names[m.rnd.IntN(len(names))]]
}

func (m *model) durability() mq.Durability {
	return []mq.Durability{mq.Synced, mq.Written, mq.Written}[m.rnd.IntN(3)]
}

func (m *model) newTopic(name string, queues int, d mq.Durability) *refTopic {
	m.made++
	m.topics[name] = &refTopic{name: name, born: m.made, durability: d, queues: make([][]*refMessage, queues)}
	return m.topics[name]
}

func (m *model) createTopic() {
	name, config := m.topicName(), mq.TopicConfig{Queues: 1 + m.rnd.IntN(5), Durability: m.durability()}
	err := m.b.CreateTopic(name, &config)
	if m.topics[name] != nil {
		require.ErrorIs(m, err, mq.ErrTopicExists)
		return
	}
	if m.full(err) {
		return
	}
	require.NoError(m, err)
	m.newTopic(name, config.Queues, config.Durability)
}

func (m *model) updateTopic() {
	t := m.aTopic()
	if t == nil {
		return
	}
	d, n := m.durability(), max(len(t.queues), min(len(t.queues)+m.rnd.IntN(3), 8))
	err := m.b.UpdateTopic(t.name, mq.TopicConfig{Queues: n, Durability: d})
	if m.full(err) {
		return
	}
	require.NoError(m, err)
	t.durability = d
	t.queues = append(t.queues, make([][]*refMessage, n-len(t.queues))...)
	m.reassign()
}

func (m *model) deleteTopic() {
	t := m.aTopic()
	if t == nil || m.rnd.IntN(3) > 0 {
		return
	}
	require.NoError(m, m.b.DeleteTopic(t.name))
	delete(m.topics, t.name)
	m.forgetWaiting(t)
	for _, g := range m.groups {
		delete(g.subs, t.name)
		for _, member := range g.members {
			member.topics = slices.DeleteFunc(member.topics, func(name string) bool { return name == t.name })
		}
	}
	m.reassign()
}

// message makes one. Some are large, so that segments are filled.
func (m *model) message(topic string) *mq.Message {
	size := m.rnd.IntN(200)
	if m.rnd.IntN(25) == 0 {
		size = m.rnd.IntN(150 << 10)
	}
	body := make([]byte, size)
	for i := range body {
		body[i] = byte(m.rnd.Uint32())
	}
	msg := &mq.Message{Topic: topic, Tag: modelTags[m.rnd.IntN(len(modelTags))], Body: body}
	if m.rnd.IntN(2) == 0 {
		msg.Keys = []string{fmt.Sprintf("k%d", m.rnd.IntN(50))}
	}
	if m.rnd.IntN(4) == 0 {
		msg.ShardingKey = fmt.Sprintf("s%d", m.rnd.IntN(9))
	}
	if m.rnd.IntN(4) == 0 {
		msg.Properties = map[string]string{"": "x\x00y", "p": "", "number": fmt.Sprint(m.rnd.IntN(9))}
	}
	return msg
}

// full reports whether a send failed because the store is bounded.
func (m *model) full(err error) bool {
	full := m.opts.Retention.MaxBytes > 0 && errors.Is(err, mq.ErrFull)
	if full {
		m.refused++
		m.isFull = true
	}
	return full
}

func (m *model) send() {
	name := m.topicName()
	msg := m.message(name)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	t, auto := m.topics[name], false
	if t == nil {
		t, auto = m.newTopic(name, 4, mq.Written), true
	}
	var r mq.SendResult
	var err error
	switch m.rnd.IntN(4) {
	case 0:
		type answer struct {
			mq.SendResult
			error
		}
		called := make(chan answer, 2)
		if err = m.p.SendAsync(ctx, msg, func(r mq.SendResult, err error) { called <- answer{r, err} }); err == nil {
			a := <-called
			r, err = a.SendResult, a.error
		}
	case 1:
		m.sendOneWay(t, msg, auto)
		return
	default:
		r, err = m.p.Send(ctx, msg)
	}
	if err != nil && auto && !slices.Contains(m.b.Topics(), name) {
		delete(m.topics, name)
	}
	if m.full(err) {
		return
	}
	require.NoError(m, err)
	m.stored(t, msg, r)
}

// sendOneWay finds out where the message went: nobody tells.
func (m *model) sendOneWay(t *refTopic, msg *mq.Message, auto bool) {
	var err error
	mqtest.Eventually(m, func() bool {
		err = m.p.SendOneWay(msg)
		return !errors.Is(err, mq.ErrBackpressure)
	}, "room for a one-way send")
	if err != nil && auto && !slices.Contains(m.b.Topics(), t.name) {
		delete(m.topics, t.name)
	}
	if m.full(err) {
		return
	}
	require.NoError(m, err)
	require.NoError(m, m.b.Sync(context.Background()))
	route, err := m.b.Route(t.name)
	require.NoError(m, err)
	for id, q := range route {
		if int(q.End) == len(t.queues[id])+1 {
			t.queues[id] = append(t.queues[id], &refMessage{sent: msg})
			return
		}
	}
	m.Errorf("a one-way send to %s has left no message: %v", t.name, route)
}

func (m *model) sendBatch() {
	var ms []*mq.Message
	for range 1 + m.rnd.IntN(20) {
		t := m.aTopic()
		if t == nil {
			return
		}
		ms = append(ms, m.message(t.name))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	results, err := m.p.SendBatch(ctx, ms)
	if m.full(err) {
		return
	}
	require.NoError(m, err)
	for i, r := range results {
		m.stored(m.topics[ms[i].Topic], ms[i], r)
	}
}

// stored notes a message: offsets are dense, IDs are new.
func (m *model) stored(t *refTopic, msg *mq.Message, r mq.SendResult) {
	require.Less(m, int(r.Queue), len(t.queues))
	require.Equal(m, len(t.queues[r.Queue]), int(r.Offset), "offset in %s:%d", t.name, r.Queue)
	require.False(m, m.ids[r.ID], "id %v again", r.ID)
	m.ids[r.ID] = true
	t.queues[r.Queue] = append(t.queues[r.Queue], &refMessage{id: r.ID, sent: msg})
}
