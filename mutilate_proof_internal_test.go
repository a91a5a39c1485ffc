package mq

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/internal/history"
)

// TestMutilationIsJudged: a store that differs from its history by one message,
// one byte or one acknowledgement is found, and by the name of what is wrong.
// Here it is the history that is changed, and the store is sound.
func TestMutilationIsJudged(t *testing.T) {
	t.Parallel()
	v := makeVictim(t, true)
	made := v.history.History()
	last := v.sent[len(v.sent)-1]
	is := func(kind history.Kind, id string) int {
		return slices.IndexFunc(made, func(o history.Op) bool { return o.Kind == kind && o.ID == id })
	}
	acked := slices.IndexFunc(made, func(o history.Op) bool {
		return o.Kind == history.OpAck && o.Group == "G" && o.Topic == "W" && o.Offset > 0
	})
	for name, row := range map[string]struct {
		change  func(ops []history.Op) []history.Op
		classes map[history.Class]int
	}{
		"nothing": {func(ops []history.Op) []history.Op { return ops }, map[history.Class]int{}},
		"a message more": {func(ops []history.Op) []history.Op {
			return append(ops, history.Op{Kind: history.OpSend, ID: "more", Topic: "W"}, history.Op{Kind: history.OpSent, ID: "more", Offset: int64(last.Offset) + 1})
		}, map[history.Class]int{history.InconsistentOffsets: 1, history.NonMonotonicSend: 1, history.Unseen: 2}},
		"a message less": {func(ops []history.Op) []history.Op {
			return slices.DeleteFunc(ops, func(o history.Op) bool { return o.ID == last.id })
		}, map[history.Class]int{history.AbortedRead: 2}},
		"another body": {func(ops []history.Op) []history.Op {
			ops[is(history.OpSend, last.id)].Hash++
			return ops
		}, map[history.Class]int{history.WrongBytes: 2}},
		"another place": {func(ops []history.Op) []history.Op {
			ops[is(history.OpSent, last.id)].Offset++
			return ops
		}, map[history.Class]int{history.DuplicateOffset: 2, history.InconsistentOffsets: 1, history.NonMonotonicSend: 1}},
		"an acknowledgement more": {func(ops []history.Op) []history.Op {
			return append(ops, history.Op{Kind: history.OpAck, Call: -1, Group: "G", Topic: "W", Offset: int64(last.Offset)}, history.Op{Kind: history.OpAcked, Call: -1})
		}, map[history.Class]int{history.DeliveredAgain: 1}},
		"an acknowledgement less": {func(ops []history.Op) []history.Op {
			return slices.Delete(ops, acked, acked+1)
		}, map[history.Class]int{history.LostWrite: 1, history.SkippedPoll: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			changed := *v
			changed.tell(t, row.change(slices.Clone(made)))
			for _, mend := range []bool{false, true} {
				count := newTally()
				err := changed.suffer(t.Context(), changed.scratch("index"), count, mend)
				require.Equal(t, row.classes, count.classes, "%v", err)
				require.Equal(t, len(row.classes) > 0, err != nil, "%v", err)
				require.Positive(t, count.operations.Load())
			}
		})
	}
}

// TestMutilationIsNotExcused: what is lost by a wound that the history is not
// told of is a lost write.
func TestMutilationIsNotExcused(t *testing.T) {
	t.Parallel()
	v := makeVictim(t, true)
	w := v.scratch("commitlog")
	hit := slices.IndexFunc(v.sent, func(m victimMessage) bool { return m.Topic == "W" && m.Offset == 20 })
	w.off = int64(v.sent[hit].from) + 30
	require.NoError(t, v.suffer(t.Context(), w, newTally(), true))

	v.sent = slices.Clone(v.sent)
	v.sent[hit].from, v.sent[hit].to = 0, 0
	count := newTally()
	require.ErrorContains(t, v.suffer(t.Context(), w, count, false), "lost write")
	require.Positive(t, count.classes[history.LostWrite])
}

// scratch is a flipped bit in the middle of the first file of a folder.
func (v *victim) scratch(folder string) wound {
	i := slices.IndexFunc(v.files, func(f victimFile) bool { return strings.Contains(f.name, "/"+folder+"/") })
	return wound{file: i, kind: "bit", off: v.files[i].used / 2, n: 1}
}

// TestRepairGoesOnBehindWhatWasSynced: groups and topics that only the checkpoint
// still knows have their ids from positions of the log that are lost. A new group
// that got such a position would be taken for the old one.
func TestRepairGoesOnBehindWhatWasSynced(t *testing.T) {
	t.Parallel()
	v := makeVictim(t, true)
	last := len(v.files) - 1
	for !v.files[last].log {
		last--
	}
	size := int64(len(v.files[last].data))
	for _, off := range []int64{64, 180, 184, 188, 192, size / 8} {
		require.NoError(t, v.suffer(t.Context(), wound{file: last, kind: "cut", off: off, n: size - off}, newTally(), true), "cut at %d", off)
	}
}
