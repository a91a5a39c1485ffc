package mq

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/commitlog"
	"github.com/pocketmq/mq/internal/coord"
	"github.com/pocketmq/mq/internal/record"
	"github.com/pocketmq/mq/internal/vfs"
)

var (
	mutilateAll  = flag.String("mutilate", "", "TestMutilate goes through every byte of the last 64 KiB in use of every file: 'turns' has each byte suffer one mutilation, 'every' all four")
	mutilateOnly = flag.String("mutilate.only", "", "a regular expression: TestMutilate keeps to the files whose path it matches")
	mutilateSeed = flag.Uint64("mutilate.seed", 0, "the seed of TestMutilate; 0 is a new one")
	mutilateCase = flag.String("mutilate.case", "", "the one case that TestMutilate is to go through, as it printed it")
)

// victim is a store with all kinds of files, small enough to be opened thousands
// of times a second, and what is in it.
type victim struct {
	name   string
	mem    *vfs.Mem
	files  []victimFile
	sent   []victimMessage
	queues map[Queue]Offset // ends
	acked  map[Queue][]Offset
	noted  coord.Position // the synced mark that the last frame notes
	last   coord.Position // that frame
	from   coord.Position // of the last checkpoint
	to     coord.Position
	before string // what Verify says of it
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
	body, tag, key string
	from, to       coord.Position // its record
	frame, behind  coord.Position // the frame that holds it
}

const victimSegment = 32 * kib

func victimOptions() Options {
	o := (&Options{Retention: Retention{Age: -1}, SyncEvery: time.Hour}).withDefaults(false)
	o.SegmentBytes = victimSegment // not to be had by Open
	return o
}

// makeVictim makes one on the real file system, where the journal can be written,
// and loads it into memory.
func makeVictim(t *testing.T, clean bool) *victim {
	dir := filepath.Join(t.TempDir(), "store")
	b := newBroker(victimOptions(), vfs.OS(), dir)
	require.NoError(t, b.own())
	require.NoError(t, b.open())
	v := &victim{name: map[bool]string{true: "closed", false: "killed"}[clean], queues: map[Queue]Offset{}, acked: map[Queue][]Offset{}}
	require.NoError(t, b.CreateTopic("W", &TopicConfig{Queues: 1, Durability: Written}))
	require.NoError(t, b.CreateTopic("S", &TopicConfig{Queues: 2, Durability: Synced}))
	require.NoError(t, b.CreateTopic("Gone", &TopicConfig{Queues: 1, Durability: Written}))
	p, err := b.NewProducer(nil)
	require.NoError(t, err)
	n := 0
	message := func(topic string) *Message {
		n++
		m := &Message{Topic: topic, Tag: fmt.Sprintf("t%d", n%3), Body: []byte(fmt.Sprintf("m%d", n))}
		if n%7 == 0 {
			m.Keys = []string{fmt.Sprintf("k%d", n)}
		}
		return m
	}
	send := func(topics ...string) {
		var ms []*Message
		for _, name := range topics {
			ms = append(ms, message(name))
		}
		rs, err := p.SendBatch(t.Context(), ms)
		require.NoError(t, err)
		frame := rs[0].ID.position
		if len(rs) > 1 {
			frame -= 24
		}
		for i, r := range rs {
			key := ""
			if len(ms[i].Keys) > 0 {
				key = ms[i].Keys[0]
			}
			if r.Topic == "Gone" {
				continue
			}
			entry, ok := b.entryOf(r)
			require.True(t, ok)
			v.sent = append(v.sent, victimMessage{
				SendResult: r, body: string(ms[i].Body), tag: ms[i].Tag, key: key,
				from: r.ID.position, to: r.ID.position + coord.Position(entry), frame: frame, behind: b.log.Written(),
			})
			v.queues[Queue{r.Topic, r.Queue}] = r.Offset + 1
		}
	}
	for i := range 1000 {
		send("W")
		switch i % 50 {
		case 10:
			send("S")
		case 20:
			send("W", "S", "W", "S")
		case 30:
			send("Gone")
		case 40: // waits longer than the test takes
			_, err := p.Send(t.Context(), &Message{Topic: "W", Body: []byte("later"), DeliverAt: time.Now().Add(time.Hour)})
			require.NoError(t, err)
		}
	}
	handled := make(chan bool, 1)
	pushed, err := b.NewPushConsumer("P", func(context.Context, *Message) error {
		select {
		case handled <- true:
		default:
		}
		return nil
	}, nil)
	require.NoError(t, err)
	require.NoError(t, pushed.Subscribe("S", All))
	<-handled
	require.NoError(t, pushed.Close())
	c, err := b.NewPullConsumer("G", &PullOptions{AckDurability: Synced})
	require.NoError(t, err)
	require.NoError(t, c.Subscribe("W", All))
	require.NoError(t, c.Subscribe("S", All))
	got := 0
	for got < 200 {
		ms, err := c.Poll(t.Context(), 32)
		require.NoError(t, err)
		for _, m := range ms {
			if got++; m.Offset%3 != 0 {
				require.NoError(t, c.Commit(t.Context(), m))
				q := Queue{m.Topic, m.Queue}
				v.acked[q] = append(v.acked[q], m.Offset)
			}
		}
	}
	require.NoError(t, c.Close())
	require.NoError(t, b.DeleteTopic("Gone"))
	for range 60 {
		send("W", "S")
		send("W")
	}
	v.last = b.log.Written()
	if clean {
		require.NoError(t, b.Close())
	} else {
		require.NoError(t, b.Sync(t.Context()))
		v.noted = b.log.Synced()
		v.last = b.log.Written()
		send("W") // its frame notes the mark
	}
	v.load(t, dir)
	if !clean {
		require.NoError(t, b.Close())
	}
	v.survey(t)
	return v
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
	require.Greater(t, kinds["commitlog"], 2)
	for _, f := range v.files {
		t.Logf("%s: %d bytes in use", f.name, f.used)
	}
	require.Positive(t, kinds["journal"])
	require.Positive(t, kinds["consumequeue"])
	require.Positive(t, kinds["index"])
	require.Positive(t, kinds["timer"])
}

// wound is one mutilation: of bytes [off, off+len) of a file.
type wound struct {
	file int
	kind string // cut, zero, noise, bit
	off  int64
	n    int64
	seed uint64
}

func (w wound) String() string {
	return fmt.Sprintf("%d:%s:%d:%d:%d", w.file, w.kind, w.off, w.n, w.seed)
}

var woundKinds = []string{"cut", "zero", "noise", "bit"}

// make makes one at an offset of a file.
func (v *victim) wound(file int, kind string, off int64, rnd *rand.Rand) wound {
	w := wound{file: file, kind: kind, off: off, n: 1, seed: rnd.Uint64()}
	size := int64(len(v.files[file].data))
	switch kind {
	case "cut":
		w.n = size - off
	case "zero", "noise":
		w.n = min(size-off, 1+rnd.Int64N(1<<rnd.IntN(11)))
	}
	return w
}

// inflict returns the bytes with the wound, and whether it changed any.
func (w wound) inflict(data []byte) ([]byte, bool) {
	out := slices.Clone(data)
	rnd := rand.New(rand.NewPCG(w.seed, 1))
	switch w.kind {
	case "cut":
		return out[:w.off], true
	case "zero":
		clear(out[w.off : w.off+w.n])
	case "noise":
		for i := range out[w.off : w.off+w.n] {
			out[w.off+int64(i)] = byte(rnd.Uint32())
		}
	case "bit":
		out[w.off] ^= 1 << rnd.IntN(8)
	}
	return out, !bytes.Equal(out, data)
}

// tally is what came of many wounds.
type tally struct {
	cases, same, missing, reported, refused, panics, wrong, unreported, harmless, acksLost, repaired, salvaged atomic.Int64
}

func (n *tally) String() string {
	return fmt.Sprintf("%d cases, %d of them changed nothing; opening refused %d, panics %d, wrong messages %d; "+
		"cases with messages lost %d (all by their own bytes), of which not reported %d, acks lost elsewhere %d; "+
		"Verify saw %d, the other %d did not matter; repaired %d, with %d messages",
		n.cases.Load(), n.same.Load(), n.refused.Load(), n.panics.Load(), n.wrong.Load(), n.missing.Load(), n.unreported.Load(), n.acksLost.Load(),
		n.reported.Load(), n.harmless.Load(), n.repaired.Load(), n.salvaged.Load())
}

// TestMutilate: whatever is cut, zeroed, overwritten or flipped in whatever file,
// the store opens, and nothing but what was hit is lost, and that is reported; no
// message is ever a wrong one.
func TestMutilate(t *testing.T) {
	t.Parallel()
	for _, clean := range []bool{true, false} {
		t.Run(map[bool]string{true: "closed", false: "killed"}[clean], func(t *testing.T) {
			t.Parallel()
			v := makeVictim(t, clean)
			if *mutilateCase != "" {
				w := wound{}
				parts := strings.Split(*mutilateCase, ":")
				w.kind = parts[1]
				_, err := fmt.Sscanf(strings.Join(slices.Delete(parts, 1, 2), " "), "%d %d %d %d", &w.file, &w.off, &w.n, &w.seed)
				require.NoError(t, err)
				t.Log(v.files[w.file].name)
				require.NoError(t, v.suffer(t.Context(), w, new(tally), true))
				return
			}
			v.sweep(t)
		})
	}
}

func (v *victim) sweep(t *testing.T) {
	seed := *mutilateSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	count := new(tally)
	wounds := make(chan wound, 64)
	var workers sync.WaitGroup
	var failures atomic.Int64
	began := time.Now()
	for range 8 * runtime.GOMAXPROCS(0) { // each waits for its store now and then
		workers.Go(func() {
			for w := range wounds {
				if err := v.suffer(t.Context(), w, count, w.seed%32 == 0); err != nil && failures.Add(1) <= 5 {
					t.Errorf("%s, %s: %v\nagain: go test -run 'TestMutilate/%s' -mutilate.case %v . (if the store is made the same)", v.files[w.file].name, w, err, v.name, w)
				}
			}
		})
	}
	rnd := rand.New(rand.NewPCG(seed, 0))
	if *mutilateAll != "" {
		v.everyByte(rnd, wounds, count)
	} else {
		n := 800
		if testing.Short() {
			n = 200
		}
		for range n {
			file := rnd.IntN(len(v.files))
			wounds <- v.wound(file, woundKinds[rnd.IntN(4)], rnd.Int64N(v.files[file].used), rnd)
		}
	}
	close(wounds)
	workers.Wait()
	t.Logf("%s, seed %d, %d files, %v: %v", v.name, seed, len(v.files), time.Since(began).Round(time.Second), count)
}

// everyByte goes through the last 64 KiB in use of every file, and random places
// before them.
func (v *victim) everyByte(rnd *rand.Rand, wounds chan<- wound, count *tally) {
	only := regexp.MustCompile(*mutilateOnly)
	for i, f := range v.files {
		if !only.MatchString(f.name) {
			continue
		}
		first := max(0, f.used-64*kib)
		for off := first; off < f.used; off++ {
			if off%4096 == 0 {
				fmt.Printf("%s: %s at %d; so far %v\n", v.name, f.name, off, count)
			}
			for _, kind := range woundKinds {
				if *mutilateAll == "every" || kind == woundKinds[off%int64(len(woundKinds))] {
					wounds <- v.wound(i, kind, off, rnd)
				}
			}
		}
		for range min(first, 4096) {
			wounds <- v.wound(i, woundKinds[rnd.IntN(4)], rnd.Int64N(first), rnd)
		}
	}
}

// suffer opens the store with a wound and looks at everything.
func (v *victim) suffer(ctx context.Context, w wound, count *tally, mend bool) (err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			count.panics.Add(1)
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	count.cases.Add(1)
	data, changed := w.inflict(v.files[w.file].data)
	if !changed {
		count.same.Add(1)
		return nil
	}
	mem := v.mem.Clone()
	if err := put(mem, v.files[w.file].name, data); err != nil {
		return err
	}
	vr, err := newVerifier(ctx, mem, "store", nil)
	if err == nil {
		err = vr.run()
	}
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	saw := vr.report.String() != v.before
	if mend {
		if err := v.mended(ctx, mem, w, count); err != nil {
			return fmt.Errorf("repair: %w", err)
		}
	}
	return v.opened(ctx, mem, w, saw, count)
}

// hits reports whether the wound reaches into [from, to) of the log.
func (v *victim) hits(w wound, from, to coord.Position) bool {
	f := v.files[w.file]
	a := f.base + coord.Position(w.off)
	b := a + coord.Position(w.n)
	if w.kind == "cut" {
		b = f.base + victimSegment // what is not in the file any more
	}
	return f.log && from < b && to > a
}

// proven is up to where something still proves that the log was synced: the
// checkpoint, and the last frame unless it is hit.
func (v *victim) proven(w wound) coord.Position {
	if v.hits(w, v.last, 1<<60) {
		return v.to
	}
	return max(v.to, v.noted)
}

// excused reports whether a message may be missing: its own bytes were hit; or
// nothing proves any more that it was synced, and it lies behind what was hit.
func (v *victim) excused(w wound, m *victimMessage) bool {
	if v.hits(w, m.from, m.to) {
		return true
	}
	f := v.files[w.file]
	return f.log && m.behind > v.proven(w) && m.behind > f.base+coord.Position(w.off)
}

// opened opens the store and has a group consume all of it.
func (v *victim) opened(ctx context.Context, mem *vfs.Mem, w wound, saw bool, count *tally) error {
	b := newBroker(victimOptions(), mem, "store")
	b.journalFS = mem
	var missed []error
	var mu sync.Mutex // protects missed
	b.opts.Hooks = &Hooks{Missed: func(i MissedInfo) {
		mu.Lock()
		defer mu.Unlock()
		missed = append(missed, i.Err)
	}}
	if err := b.open(); err != nil {
		count.refused.Add(1)
		return errors.Join(fmt.Errorf("does not open: %w", err), b.release())
	}
	defer b.Close() // it cannot write a checkpoint
	acks := v.lostAcks(b)
	got, err := v.consume(ctx, b)
	if err != nil {
		count.wrong.Add(1)
		return err
	}
	var lost []*victimMessage
	for i := range v.sent {
		if m := &v.sent[i]; !got[m.ID] {
			if !v.excused(w, m) {
				count.wrong.Add(1)
				return fmt.Errorf("%v offset %d at %d is missing (%d delivered), recovery %+v, missed %v", m.Topic, m.Offset, m.from, len(got), b.Recovery(), missed)
			}
			lost = append(lost, m)
		}
	}
	if acks > 0 && !(v.files[w.file].log && v.hits(w, v.from, 1<<60)) {
		count.acksLost.Add(1)
		return fmt.Errorf("%d acknowledgements are lost", acks)
	}
	mu.Lock()
	defer mu.Unlock()
	return v.judge(b.Recovery(), w, lost, missed, saw, acks, count)
}

// judge demands that what is lost was reported.
func (v *victim) judge(r Recovery, w wound, lost []*victimMessage, missed []error, saw bool, acks int, count *tally) error {
	if saw {
		count.reported.Add(1)
	} else {
		count.harmless.Add(1)
	}
	if len(lost) == 0 && acks == 0 {
		return nil
	}
	count.missing.Add(1)
	if !saw {
		count.unreported.Add(1)
		return fmt.Errorf("%d messages and %d acks lost, and Verify sees nothing", len(lost), acks)
	}
	proven := v.proven(w)
	for _, m := range lost {
		if m.behind > proven {
			continue
		}
		var bad *CorruptionError
		located := len(r.Corrupt) > 0
		for _, err := range missed {
			located = located || errors.As(err, &bad) && bad.File != ""
		}
		if !located {
			count.unreported.Add(1)
			return fmt.Errorf("%v offset %d at %d was synced and is lost; recovery %+v, missed %v", m.Topic, m.Offset, m.from, r, missed)
		}
	}
	return nil
}

// lostAcks counts synced acknowledgements that are not known any more.
func (v *victim) lostAcks(b *Broker) (n int) {
	g := b.names.group(groupKey{name: "G"})
	for q, offsets := range v.acked {
		t := b.names.topic(q.Topic)
		if g == nil || t == nil || g.subs[t.id] == nil {
			n += len(offsets)
			continue
		}
		p := g.subs[t.id].progress(q.ID)
		for _, off := range offsets {
			if !p.done(off) {
				n++
			}
		}
	}
	return n
}

// done reports whether an offset is acknowledged.
func (p *progress) done(off Offset) bool {
	return off < p.committed || slices.ContainsFunc(p.ahead, func(s span) bool { return off >= s.From && off < s.To })
}

const sentinel = "the end"

// consume delivers everything to a new group, up to a message that is sent to
// every queue first. A wrong message is an error.
func (v *victim) consume(ctx context.Context, b *Broker) (map[MessageID]bool, error) {
	expected := map[Queue]map[Offset]*victimMessage{}
	for i := range v.sent {
		m := &v.sent[i]
		q := Queue{m.Topic, m.Queue}
		if expected[q] == nil {
			expected[q] = map[Offset]*victimMessage{}
		}
		expected[q][m.Offset] = m
	}
	open := map[Queue]bool{}
	c, err := b.NewPullConsumer("Reader", nil)
	if err != nil {
		return nil, err
	}
	for q := range v.queues {
		if t := b.names.topic(q.Topic); t == nil || int(q.ID) >= len(*t.queues.Load()) {
			continue
		}
		p, err := b.NewProducer(&ProducerOptions{Selector: func(*Message, int) QueueID { return q.ID }})
		if err == nil {
			_, err = p.Send(ctx, &Message{Topic: q.Topic, Body: []byte(sentinel)})
		}
		if err == nil {
			err = c.Subscribe(q.Topic, All)
		}
		if err != nil {
			return nil, err
		}
		open[q] = true
	}
	got := map[MessageID]bool{}
	for len(open) > 0 {
		ms, err := c.Poll(ctx, 1024)
		if err != nil {
			return got, fmt.Errorf("%d delivered, waiting for %v: %w", len(got), slices.Collect(maps.Keys(open)), err)
		}
		for _, m := range ms {
			q := Queue{m.Topic, m.Queue}
			if string(m.Body) == sentinel {
				delete(open, q)
				continue
			}
			if err := expected[q][m.Offset].same(m); err != nil {
				return got, err
			}
			got[m.ID] = true
		}
	}
	return got, nil
}

// same compares a delivered message with what was sent.
func (want *victimMessage) same(m *Message) error {
	if want == nil || m.ID != want.ID || string(m.Body) != want.body || m.Tag != want.tag || strings.Join(m.Keys, "") != want.key {
		return fmt.Errorf("WRONG MESSAGE: %+v, sent %+v", m, want)
	}
	return nil
}

// mended repairs the store and consumes the new one: what is in it is what was
// sent, and all of it whose own bytes are whole.
func (v *victim) mended(ctx context.Context, mem *vfs.Mem, w wound, count *tally) error {
	r, err := repair(ctx, mem, "store", "dst", nil)
	if err != nil {
		return err
	}
	vr, err := newVerifier(ctx, mem, "dst", nil)
	if err == nil {
		err = vr.run()
	}
	if err != nil {
		return err
	}
	for _, p := range vr.report.Problems {
		// In memory there is no journal.
		if p.Kind != Hole && p.Kind != DamagedJournal && p.File != "journal" && !(p.Kind == TornTail && strings.Contains(p.Detail, "shorter")) {
			return fmt.Errorf("the new store: %v", p)
		}
	}
	b := newBroker(victimOptions(), mem, "dst")
	b.journalFS = mem
	if err := b.open(); err != nil {
		return errors.Join(err, b.release())
	}
	defer b.Close()
	if len(b.Recovery().Corrupt)+len(b.Recovery().Cut) > 0 {
		return fmt.Errorf("the new store: %+v", b.Recovery())
	}
	if acks := v.lostAcks(b); acks > 0 && !(v.files[w.file].log && v.hits(w, v.from, 1<<60)) {
		return fmt.Errorf("%d acknowledgements are lost", acks)
	}
	got, err := v.consume(ctx, b)
	if err != nil {
		return err
	}
	for i := range v.sent {
		m := &v.sent[i]
		if !got[m.ID] && !v.hits(w, m.from, m.to) && !(m.behind > v.proven(w) && v.hits(w, m.frame, m.behind)) {
			return fmt.Errorf("%v offset %d at %d is whole, and not in the new store: %v", m.Topic, m.Offset, m.from, r)
		}
	}
	count.repaired.Add(1)
	count.salvaged.Add(int64(len(got)))
	return b.Check(ctx)
}

// TestDamageIsSearchedOnce: a stretch of damage costs its readers one search, not
// one for each message in it.
func TestDamageIsSearchedOnce(t *testing.T) {
	t.Parallel()
	v := makeVictim(t, true)
	for _, whole := range []bool{true, false} {
		mem := v.mem.Clone()
		lost := 0
		if !whole {
			w := wound{file: slices.IndexFunc(v.files, func(f victimFile) bool { return f.log }), kind: "zero", off: 8 * kib, n: 16 * kib}
			data, _ := w.inflict(v.files[w.file].data)
			require.NoError(t, put(mem, v.files[w.file].name, data))
			for i := range v.sent {
				if v.hits(w, v.sent[i].from, v.sent[i].to) {
					lost++
				}
			}
			require.Greater(t, lost, 100)
		}
		b := newBroker(victimOptions(), mem, "store")
		b.journalFS = mem
		require.NoError(t, b.open())
		before := mem.Calls(vfs.OpRead)
		got, err := v.consume(t.Context(), b)
		require.NoError(t, err)
		require.Len(t, got, len(v.sent)-lost)
		require.Less(t, mem.Calls(vfs.OpRead)-before, int64(100+4*lost), "lost: %d", lost)
		_ = b.Close() // it cannot write a checkpoint
	}
}
