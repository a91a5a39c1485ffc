package mq

import (
	"bytes"
	"encoding/binary"
	"math"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/consumequeue"
	"github.com/pocketmq/mq/internal/coord"
	"github.com/pocketmq/mq/internal/record"
	"github.com/pocketmq/mq/internal/vfs"
)

// checkpointSeeds are bodies of checkpoints.
func checkpointSeeds() [][]byte {
	head := []byte{itemHeader}
	for _, n := range []uint64{7, 4096, 8192} {
		head = binary.LittleEndian.AppendUint64(head, n)
	}
	head = binary.LittleEndian.AppendUint32(head, 3)
	for range 2 {
		head = binary.LittleEndian.AppendUint64(head, 0)
		head = binary.LittleEndian.AppendUint64(head, 4096)
	}
	queue := []byte{itemQueue}
	queue = binary.LittleEndian.AppendUint64(queue, 64)
	queue = binary.LittleEndian.AppendUint32(queue, 1)
	queue = binary.LittleEndian.AppendUint64(queue, 2)
	queue = binary.LittleEndian.AppendUint64(queue, 5)
	queue = append(queue, make([]byte, 2*consumequeue.EntrySize)...)
	whole := appendItem(nil, 0, head)
	whole = appendRecord(whole, 64, &record.Topic{ID: 64, Name: "T", Queues: 2})
	whole = appendItem(whole, 0, queue)
	whole = appendRecord(whole, 128, &record.Group{ID: 128, Name: "G"})
	whole = appendRecord(whole, 192, &record.Start{ID: 192, Group: 128, Topic: 64, Offsets: []Offset{1, 2}})
	whole = appendRecord(whole, 0, &record.Ack{Group: 128, Start: 192, Topic: 64, Queue: 1, Ranges: []record.Range{{From: 4, To: 6}}})
	return [][]byte{whole, whole[:len(whole)-1], appendItem(nil, 0, head)}
}

// FuzzCheckpoint folds any bytes as the body of a checkpoint: it is refused or
// folded, and a fold captures to items that fold to the same.
func FuzzCheckpoint(f *testing.F) {
	for _, seed := range checkpointSeeds() {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		fold := func(body []byte) (*verifier, error) {
			v, err := newFold(t)
			require.NoError(t, err)
			return v, v.foldCheckpoint(body)
		}
		v, err := fold(body)
		if err != nil {
			return
		}
		for key, q := range v.queues {
			require.GreaterOrEqual(t, q.state.Flushed, q.state.Min)
			require.Less(t, int(key.queue), maxQueues)
		}
		groups := func(v *verifier) map[coord.GroupID]string {
			all := map[coord.GroupID]string{}
			for id, g := range v.b.state.groups {
				all[id] = g.name + " " + g.instance
			}
			return all
		}
		again := appendItem(nil, 0, body[itemPrefix:itemPrefix+headerBytes])
		for _, tp := range v.b.state.topics {
			again = appendRecord(again, tp.at, tp.config())
		}
		for _, g := range v.b.state.groups {
			again = captureGroup(again, g)
		}
		w, err := fold(again)
		require.NoError(t, err)
		require.Equal(t, groups(v), groups(w))
		require.Len(t, w.b.state.topics, len(v.b.state.topics))
		for id, g := range v.b.state.groups {
			for topic, sub := range g.subs {
				other := w.b.state.groups[id].subs[topic]
				for q := range sub.queues {
					require.Equal(t, sub.queues[q].committed, other.progress(QueueID(q)).committed)
					require.Equal(t, len(sub.queues[q].ahead), len(other.progress(QueueID(q)).ahead))
				}
			}
		}
	})
}

// newFold is a verifier over an empty store.
func newFold(t testing.TB) (*verifier, error) {
	mem := vfs.NewMem(0)
	require.NoError(t, mem.MkdirAll("store/commitlog"))
	return newVerifier(t.Context(), mem, "store", nil)
}

func FuzzCheckpointItems(f *testing.F) {
	for _, seed := range checkpointSeeds() {
		_ = eachItem(seed, func(payload []byte, _ coord.Position) error {
			f.Add(payload)
			return nil
		})
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		if h, err := decodeItemHeader(payload); err == nil {
			again := binary.LittleEndian.AppendUint64(payload[:1:1], h.store)
			for _, pos := range []coord.Position{h.from, h.to} {
				again = binary.LittleEndian.AppendUint64(again, uint64(pos))
			}
			again = binary.LittleEndian.AppendUint32(again, h.epoch)
			for _, pos := range []coord.Position{h.keysFrom, h.keysTo, h.timerFrom, h.timerTo} {
				again = binary.LittleEndian.AppendUint64(again, uint64(pos))
			}
			require.Equal(t, payload, again)
		}
		if _, id, st, err := decodeItemQueue(payload); err == nil {
			require.Less(t, int(id), maxQueues)
			require.Equal(t, (len(payload)-queueBytes)/consumequeue.EntrySize, len(st.Tail))
		}
	})
}

// FuzzNames: what is accepted as a name can be a part of a path.
func FuzzNames(f *testing.F) {
	for _, name := range []string{"OrderTopic", "..", "a/b", "%RETRY%G", strings.Repeat("x", 128), "\x00"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		for _, validate := range []func(string) error{validateTopic, validateGroup, validateInstance} {
			if err := validate(name); err != nil {
				require.ErrorIs(t, err, ErrInvalidName)
				require.Less(t, len(err.Error()), 4*maxTopicName+200)
				continue
			}
			require.NotEmpty(t, name)
			require.LessOrEqual(t, len(name), maxTopicName)
			require.Equal(t, -1, strings.IndexFunc(name, func(r rune) bool { return r > 127 || !nameByte(byte(r)) }))
		}
	})
}

func FuzzParseID(f *testing.F) {
	f.Add(MessageID{store: 1, epoch: 2, position: 8}.String())
	f.Add("zz")
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := ParseID(s); err == nil {
			require.Equal(t, s, id.String())
		} else {
			require.ErrorIs(t, err, ErrInvalidArgument)
		}
	})
}

// FuzzTagExpr: an expression is refused or means the same as what it prints.
func FuzzTagExpr(f *testing.F) {
	for _, expr := range []string{"", "*", "A || B", " A||A ", "A ||", "||", strings.Repeat("t", 128), "A\x00|B"} {
		f.Add(expr)
	}
	f.Fuzz(func(t *testing.T, expr string) {
		filter := TagExpr(expr)
		if filter.err != nil {
			require.ErrorIs(t, filter.err, ErrInvalidFilter)
			return
		}
		again := TagExpr(filter.String())
		require.NoError(t, again.err)
		require.Equal(t, filter.tags, again.tags)
		for _, tag := range filter.tags {
			require.True(t, filter.matchTag([]byte(tag)))
			require.True(t, filter.matchHash(tagHash(tag)))
		}
	})
}

// TestHostileCheckpoint: numbers in a checkpoint that say more than there is make
// nobody take memory for it.
func TestHostileCheckpoint(t *testing.T) { //nolint:paralleltest // measures the heap of the process
	seed := checkpointSeeds()[0]
	for at := range len(seed) - 8 {
		body := bytes.Clone(seed)
		binary.LittleEndian.PutUint64(body[at:], math.MaxInt64)
		least := uint64(math.MaxUint64)
		for range 3 {
			v, err := newFold(t)
			require.NoError(t, err)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_ = v.foldCheckpoint(body)
			runtime.ReadMemStats(&after)
			least = min(least, after.TotalAlloc-before.TotalAlloc)
		}
		// A topic may have 1,024 queues, whoever says so: 512 bytes each.
		require.Less(t, least, uint64(1<<20), "byte %d", at)
	}
}
