package mq

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/commitlog"
	"github.com/pocketmq/mq/internal/coord"
	"github.com/pocketmq/mq/internal/history"
	"github.com/pocketmq/mq/internal/record"
	"github.com/pocketmq/mq/internal/vfs"
)

// victim is a store with all kinds of files, small enough to be opened thousands
// of times a second, and what is in it.
type victim struct {
	name    string
	mem     *vfs.Mem
	files   []victimFile
	history *history.Checker // that was told how the store was made
	made    int              // operations of that
	sent    []victimMessage
	numbers map[MessageID]int // of what was sent
	queues  map[Queue]bool
	acks    []victimAcks
	noted   coord.Position // the synced mark that the last frame notes
	last    coord.Position // that frame
	from    coord.Position // of the last checkpoint
	to      coord.Position
	before  string // what Verify says of it
}

type victimFile struct {
	name string
	base coord.Position // of a segment
	log  bool
	used int64
	data []byte
}

type victimMessage struct {
	SendResult
	id            string         // in the history
	from, to      coord.Position // its record
	frame, behind coord.Position // the frame that holds it
}

// victimAcks is what one call acknowledged.
type victimAcks struct {
	damaged  []history.Op   // what the history is told when they are
	from, to coord.Position // its records
}

const victimSegment = 32 * kib

func victimOptions() Options {
	o := (&Options{Retention: Retention{Age: -1}, SyncEvery: time.Hour}).withDefaults(false)
	o.SegmentBytes = victimSegment // not to be had by Open
	return o
}

// victimMaker makes a victim and records how. It does one thing after another,
// so the beginning of a call may be recorded with its end.
type victimMaker struct {
	*victim
	t   *testing.T
	b   *Broker
	p   *Producer
	rec history.Recorder
	n   int // messages
}

// makeVictim makes one on the real file system, where the journal can be written,
// and loads it into memory.
func makeVictim(t *testing.T, clean bool) *victim {
	dir := filepath.Join(t.TempDir(), "store")
	b := newBroker(victimOptions(), vfs.OS(), dir)
	require.NoError(t, b.own())
	require.NoError(t, b.open())
	v := &victim{name: map[bool]string{true: "closed", false: "killed"}[clean], numbers: map[MessageID]int{}, queues: map[Queue]bool{}}
	k := &victimMaker{victim: v, t: t, b: b}
	k.fill()
	k.push()
	k.pull()
	k.rec.Add(history.Op{Kind: history.OpDeleted, Topic: "Gone"})
	require.NoError(t, b.DeleteTopic("Gone"))
	for range 40 {
		k.send("W", "S")
		k.send("W")
	}
	v.last = b.log.Written()
	sync := history.Op{Call: k.rec.Begin(history.Op{Kind: history.OpSync}), Kind: history.OpSyncDone}
	if clean {
		require.NoError(t, b.Close())
		k.rec.Add(sync)
	} else {
		require.NoError(t, b.Sync(t.Context()))
		k.rec.Add(sync)
		v.noted = b.log.Synced()
		v.last = b.log.Written()
		k.send("W") // its frame notes the mark
	}
	if clean {
		v.load(t, dir)
	} else {
		b.upkeep.stop() // a copy made beside a checkpoint is of no moment that there was
		v.load(t, dir)
		b.upkeep.quit = make(chan struct{})
		b.upkeep.start()
		require.NoError(t, b.Close())
	}
	v.tell(t, k.rec.History())
	v.survey(t)
	return v
}

// tell begins the history that every wound continues.
func (v *victim) tell(t *testing.T, made []history.Op) {
	c := history.NewChecker()
	c.Add(made...)
	require.NoError(t, c.Report().Err())
	v.history, v.made = c.Clone(), len(made) // clones of a clone cost little
}

func (k *victimMaker) fill() {
	require.NoError(k.t, k.b.CreateTopic("W", &TopicConfig{Queues: 1, Durability: Written}))
	require.NoError(k.t, k.b.CreateTopic("S", &TopicConfig{Queues: 2, Durability: Synced}))
	require.NoError(k.t, k.b.CreateTopic("Gone", &TopicConfig{Queues: 1, Durability: Written}))
	p, err := k.b.NewProducer(nil)
	require.NoError(k.t, err)
	k.p = p
	for i := range 1000 {
		k.send("W")
		switch i % 50 {
		case 10:
			k.send("S")
		case 20:
			k.send("W", "S", "W", "S")
		case 30:
			k.send("Gone")
		case 40: // waits longer than any test takes, so it is not in the history: nobody may get it
			_, err := p.Send(k.t.Context(), &Message{Topic: "W", Body: []byte("later"), Delay: 24 * time.Hour})
			require.NoError(k.t, err)
		}
	}
}

func (k *victimMaker) message(topic string) *Message {
	k.n++
	m := &Message{Topic: topic, Tag: fmt.Sprintf("t%d", k.n%3), Body: []byte(fmt.Sprintf("m%d", k.n))}
	if k.n%7 == 0 {
		m.Keys = []string{fmt.Sprintf("k%d", k.n)}
	}
	return m
}

// send sends a message to each of the topics, in one batch.
func (k *victimMaker) send(topics ...string) {
	var ms []*Message
	for _, name := range topics {
		ms = append(ms, k.message(name))
	}
	rs, err := k.p.SendBatch(k.t.Context(), ms)
	require.NoError(k.t, err)
	frame := rs[0].ID.position
	if len(rs) > 1 {
		frame -= 24
	}
	for i, r := range rs {
		k.rec.Add(sendOps(r, ms[i])...)
		if r.Topic == "Gone" {
			continue
		}
		entry, ok := k.b.entryOf(r)
		require.True(k.t, ok)
		k.numbers[r.ID] = len(k.sent)
		k.sent = append(k.sent, victimMessage{
			SendResult: r, id: r.ID.String(), from: r.ID.position, to: r.ID.position + coord.Position(entry), frame: frame, behind: k.b.log.Written(),
		})
		k.queues[Queue{r.Topic, r.Queue}] = true
	}
}

// sendOps is a message in the history. It is known by the id that it got, and
// everything else that a receiver sees is in the hash.
func sendOps(r SendResult, m *Message) []history.Op {
	d := history.Written
	if r.Topic == "S" {
		d = history.Synced
	}
	id := r.ID.String()
	return []history.Op{
		{Kind: history.OpSend, ID: id, Topic: r.Topic, Hash: hashOf(m), Durability: d},
		{Kind: history.OpSent, ID: id, Queue: int(r.Queue), Offset: int64(r.Offset)},
	}
}

// hashOf stands for body, tag and keys.
func hashOf(m *Message) uint64 {
	text := append(make([]byte, 0, 64), m.Body...)
	for _, s := range append([]string{m.Tag}, m.Keys...) {
		text = append(append(text, 0), s...)
	}
	return xxhash.Sum64(text)
}

// push has push consumers of group P handle all of topic S.
func (k *victimMaker) push() {
	var left []*victimMessage
	for i := range k.sent {
		if k.sent[i].Topic == "S" {
			left = append(left, &k.sent[i])
		}
	}
	from := k.b.log.Written()
	handled := make(chan history.Op, len(left))
	c, err := k.b.NewPushConsumer("P", func(_ context.Context, m *Message) error {
		handled <- ackOp("P", m)
		return nil
	}, nil)
	require.NoError(k.t, err)
	require.NoError(k.t, c.Subscribe("S", All))
	var acks []history.Op
	for range left {
		acks = append(acks, <-handled)
	}
	require.NoError(k.t, c.Close())
	k.rec.Add(history.Op{Kind: history.OpAcked, Call: k.rec.Begin(acks...)})
	k.acks = append(k.acks, victimAcks{damaged: damagedOps(acks), from: from, to: k.b.log.Written()})
}

// ackOp is the acknowledgement of a message in the history.
func ackOp(group string, m *Message) history.Op {
	return history.Op{Kind: history.OpAck, Group: group, Topic: m.Topic, Queue: int(m.Queue), Offset: int64(m.Offset), Durability: history.Written}
}

func damagedOps(acks []history.Op) []history.Op {
	ops := slices.Clone(acks)
	for i := range ops {
		ops[i].Kind = history.OpDamaged
	}
	return ops
}

// pull has group G acknowledge most of what there is. That it got the rest as
// well is not in the history: so it has to get that again.
func (k *victimMaker) pull() {
	from := k.b.log.Written()
	c, err := k.b.NewPullConsumer("G", &PullOptions{AckDurability: Synced})
	require.NoError(k.t, err)
	require.NoError(k.t, c.Subscribe("W", All))
	require.NoError(k.t, c.Subscribe("S", All))
	group := victimAcks{from: from, to: k.b.log.Written()} // without it none of the others means anything
	for got := 0; got < len(k.sent); {
		ms, err := c.Poll(k.t.Context(), 16)
		require.NoError(k.t, err)
		got += len(ms)
		group.damaged = append(group.damaged, k.commit(c, ms)...)
	}
	k.acks = append(k.acks, group)
	require.NoError(k.t, c.Close())
}

// commit acknowledges most of what was polled. It returns what the history is
// told when that is damaged.
func (k *victimMaker) commit(c *PullConsumer, ms []*Message) []history.Op {
	ms = slices.DeleteFunc(ms, func(m *Message) bool { return m.Offset%29 == 0 })
	if len(ms) == 0 {
		return nil
	}
	var acks []history.Op
	for _, m := range ms {
		op := ackOp("G", m)
		op.Durability = history.Synced
		acks = append(acks, op)
	}
	call := k.rec.Begin(acks...)
	from := k.b.log.Written()
	require.NoError(k.t, c.Commit(k.t.Context(), ms...))
	k.rec.Add(history.Op{Kind: history.OpAcked, Call: call})
	a := victimAcks{damaged: damagedOps(acks), from: from, to: k.b.log.Written()}
	k.acks = append(k.acks, a)
	return a.damaged
}

// entryOf is the size of a message's record.
func (b *Broker) entryOf(r SendResult) (int64, bool) {
	q, err := b.queueOf(Queue{r.Topic, r.Queue})
	if err != nil {
		return 0, false
	}
	var size int64
	_, ok := b.resolves(q, r.Offset)
	m, err := b.messageAt(commitlog.Ref{Position: r.ID.position}, func(v *record.View) bool {
		size = int64(24 + len(v.Text()) + 24 + len(v.Body)) // no less
		return true
	})
	return size, ok && err == nil && m != nil
}

// load copies the store into memory.
func (v *victim) load(t *testing.T, dir string) {
	v.mem = vfs.NewMem(0)
	require.NoError(t, filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(filepath.Dir(dir), name)
		if err != nil || d.IsDir() {
			return errors.Join(err, v.mem.MkdirAll(rel))
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if d.Name() == reserveName {
			data = nil // a mebibyte that says nothing
		}
		f := victimFile{name: rel, data: data, used: int64(len(data))}
		f.log = filepath.Base(filepath.Dir(rel)) == "commitlog"
		if f.log {
			_, _ = fmt.Sscanf(d.Name(), "%d", &f.base)
			f.used = int64(len(bytes.TrimRight(data, "\x00")))
		}
		if !strings.Contains(rel, reserveName) && f.used > 0 {
			v.files = append(v.files, f)
		}
		return put(v.mem, rel, data)
	}))
}

// put makes a file of a memory file system hold exactly data.
func put(m *vfs.Mem, name string, data []byte) error {
	f, err := m.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = m.Create(name, int64(len(data)))
	}
	if err != nil {
		return err
	}
	if err := f.Cut(int64(len(data))); err != nil {
		return err
	}
	if len(data) > 0 {
		if _, err := f.WriteAt(data, 0); err != nil {
			return err
		}
	}
	return f.Close()
}

// survey notes what the checkpoint proves, and what Verify says as it is.
func (v *victim) survey(t *testing.T) {
	vr, err := newVerifier(t.Context(), v.mem, "store", nil)
	require.NoError(t, err)
	require.NoError(t, vr.run())
	require.True(t, vr.report.OK(), "%v", vr.report)
	v.from, v.to, v.before = vr.head.from, vr.head.to, vr.report.String()
	kinds := map[string]int{}
	for _, f := range v.files {
		kinds[strings.Split(f.name, "/")[1]]++
	}
	for _, f := range v.files {
		t.Logf("%s: %d bytes in use", f.name, f.used)
	}
	require.Greater(t, kinds["commitlog"], 2)
	require.Positive(t, kinds["journal"])
	require.Positive(t, kinds["consumequeue"])
	require.Positive(t, kinds["index"])
	require.Positive(t, kinds["timer"])
}
