package history_test

import (
	"bytes"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/internal/history"
)

// Short ways to write a history on one topic, mostly on its queue 0.

func send(id string, d history.Durability) history.Op {
	return history.Op{Kind: history.OpSend, ID: id, Topic: "T", Hash: 1, Durability: d}
}

func sent(id string, off int64) history.Op {
	return history.Op{Kind: history.OpSent, ID: id, Offset: off}
}

func ended(kind history.Kind, id string) history.Op { return history.Op{Kind: kind, ID: id} }

func poll(id string, off int64) history.Op {
	return history.Op{Kind: history.OpPoll, Group: "G", Member: "a", Topic: "T", Offset: off, ID: id, Hash: 1}
}

func read(id string, off int64) history.Op {
	return history.Op{Kind: history.OpRead, Topic: "T", Offset: off, ID: id, Hash: 1}
}

func ack(call, off int64, d history.Durability) history.Op {
	return history.Op{Kind: history.OpAck, Call: call, Group: "G", Topic: "T", Offset: off, Durability: d}
}

func calls(kind history.Kind, call int64) history.Op {
	return history.Op{Kind: kind, Call: call, Group: "G", Topic: "T"}
}

func plain(kind history.Kind) history.Op {
	return history.Op{Kind: kind, Group: "G", Member: "a", Topic: "T"}
}

func damaged(id string) history.Op { return history.Op{Kind: history.OpDamaged, ID: id} }

func damagedAck(off int64) history.Op {
	return history.Op{Kind: history.OpDamaged, Group: "G", Topic: "T", Offset: off}
}

func torn(off int64) history.Op { return history.Op{Kind: history.OpTorn, Topic: "T", Offset: off} }

const (
	synced   = history.Synced
	written  = history.Written
	volatile = history.Volatile
)

// with appends to a history in which a, b and c were acknowledged as d.
func with(d history.Durability, more ...history.Op) []history.Op {
	return append([]history.Op{send("a", d), sent("a", 0), send("b", d), sent("b", 1), send("c", d), sent("c", 2)}, more...)
}

// acked is a history in which a message was sent, got and acknowledged.
func acked(id string, more ...history.Op) []history.Op {
	return append([]history.Op{send(id, synced), sent(id, 0), poll(id, 0), ack(1, 0, synced), calls(history.OpAcked, 1)}, more...)
}

// failed is the end of a reset of which nobody knows what it did.
func failed(call int64) history.Op {
	return history.Op{Kind: history.OpResetDone, Call: call, Error: "nobody knows"}
}

func resetQueue(q int, to int64) history.Op {
	return history.Op{Kind: history.OpResetQueue, Call: 2, Group: "G", Topic: "T", Queue: q, Offset: to}
}

// empty is a look at a store in which there is nothing.
var empty = []history.Op{calls(history.OpScan, 9), calls(history.OpScanDone, 9)}

func after(ops []history.Op, more ...history.Op) []history.Op { return slices.Concat(ops, more) }

// TestCheck has, for every class, histories in which it is found, with the
// operations that prove it, and beside them such as are like it and sound.
func TestCheck(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		ops   []history.Op
		class history.Class // empty: sound
		count int           // 0: 1
		proof []int
	}{
		"sound": {ops: with(synced, poll("a", 0), poll("b", 1), poll("c", 2), ack(1, 0, synced), ack(1, 1, synced), calls(history.OpAcked, 1),
			plain(history.OpCut), poll("c", 2), plain(history.OpDrained))},

		"lost: nothing happened":      {ops: after(with(written), empty...), class: history.LostWrite, count: 3, proof: []int{0, 1, 7}},
		"lost: synced, power cut":     {ops: after(with(synced, plain(history.OpCut)), empty...), class: history.LostWrite, count: 3},
		"lost: written, kill":         {ops: after(with(written, plain(history.OpKill)), empty...), class: history.LostWrite, count: 3},
		"lost: written, power cut":    {ops: after(with(written, plain(history.OpCut)), empty...)},
		"lost: synced by a call":      {ops: after(with(written, calls(history.OpSync, 1), calls(history.OpSyncDone, 1), plain(history.OpCut)), empty...), class: history.LostWrite, count: 3},
		"lost: sync began before":     {ops: after(slices.Concat([]history.Op{calls(history.OpSync, 1)}, with(written, calls(history.OpSyncDone, 1), plain(history.OpCut))), empty...)},
		"lost: sync never ended":      {ops: after(with(written, calls(history.OpSync, 1), plain(history.OpCut)), empty...)},
		"lost: two syncs under way":   {ops: after(with(written, calls(history.OpSync, 1), calls(history.OpSync, 2), calls(history.OpSyncDone, 2), calls(history.OpSyncDone, 1), plain(history.OpCut)), empty...), class: history.LostWrite, count: 3},
		"lost: stronger than asked":   {ops: after([]history.Op{send("a", written), {Kind: history.OpSent, ID: "a", Durability: synced}, plain(history.OpCut)}, empty...), class: history.LostWrite},
		"lost: not acknowledged":      {ops: after([]history.Op{send("a", synced), plain(history.OpKill)}, empty...)},
		"lost: delivered as written":  {ops: after([]history.Op{send("a", written), poll("a", 0), plain(history.OpKill)}, empty...), class: history.LostWrite},
		"lost: delivered as synced":   {ops: after([]history.Op{send("a", synced), poll("a", 0), plain(history.OpCut)}, empty...), class: history.LostWrite},
		"lost: dropped":               {ops: after(with(synced, history.Op{Kind: history.OpDropped, Topic: "T", Offset: 3}), empty...)},
		"lost: not yet seen":          {ops: after([]history.Op{send("a", synced), {Kind: history.OpDropped, Topic: "T", Offset: 3}, sent("a", 3)}, empty...), class: history.LostWrite},
		"lost: dropped in part":       {ops: after(with(synced, history.Op{Kind: history.OpDropped, Topic: "T", Offset: 2}), empty...), class: history.LostWrite, proof: []int{4, 5, 8}},
		"lost: topic deleted":         {ops: after(with(synced, plain(history.OpDeleted)), empty...)},
		"lost: one look":              {ops: with(synced, read("", 1)), class: history.LostWrite, proof: []int{2, 3, 6}},
		"lost: never delivered":       {ops: with(synced, plain(history.OpJoin), poll("a", 0), plain(history.OpSeek), poll("c", 2), plain(history.OpDrained))}, // a seek
		"lost: never delivered, join": {ops: with(synced, poll("a", 0), plain(history.OpJoin), poll("c", 2), plain(history.OpDrained)), class: history.LostWrite, proof: []int{2, 3, 9}},

		"unseen":                  {ops: with(synced, poll("a", 0), poll("b", 1), plain(history.OpDrained)), class: history.Unseen, proof: []int{4, 5, 8}},
		"unseen: acknowledged":    {ops: with(synced, poll("a", 0), poll("b", 1), ack(1, 2, synced), calls(history.OpUnacked, 1), plain(history.OpDrained))},
		"unseen: reset behind it": {ops: with(synced, calls(history.OpReset, 1), calls(history.OpResetDone, 1), plain(history.OpDrained))},
		"unseen: reset failed":    {ops: with(synced, calls(history.OpReset, 1), failed(1), plain(history.OpDrained))},
		"unseen: rewound":         {ops: acked("a", calls(history.OpRewind, 2), calls(history.OpResetDone, 2), plain(history.OpDrained)), class: history.Unseen, proof: []int{0, 2, 7}},
		"unseen: rewind failed":   {ops: acked("a", calls(history.OpRewind, 2), failed(2), plain(history.OpDrained))},
		"unseen: rewind killed":   {ops: acked("a", calls(history.OpRewind, 2), plain(history.OpKill), plain(history.OpDrained))},
		"unseen: rewound, acked":  {ops: acked("a", calls(history.OpRewind, 2), ack(3, 0, synced), calls(history.OpResetDone, 2), plain(history.OpDrained))},
		"unseen: there and back":  {ops: with(synced, calls(history.OpReset, 1), calls(history.OpResetDone, 1), calls(history.OpRewind, 2), calls(history.OpResetDone, 2), plain(history.OpDrained)), class: history.Unseen, count: 3},
		"unseen: back and there":  {ops: with(synced, calls(history.OpRewind, 2), calls(history.OpResetDone, 2), calls(history.OpReset, 1), calls(history.OpResetDone, 1), plain(history.OpDrained))},
		"unseen: sent after it":   {ops: after([]history.Op{calls(history.OpReset, 1), calls(history.OpResetDone, 1)}, with(synced, plain(history.OpDrained))...), class: history.Unseen, count: 3},
		"unseen: queue reset":     {ops: with(synced, resetQueue(0, 1), calls(history.OpResetDone, 2), plain(history.OpDrained)), class: history.Unseen, count: 2, proof: []int{2, 3, 8}},
		"unseen: other queue":     {ops: acked("a", resetQueue(1, 0), calls(history.OpResetDone, 2), plain(history.OpDrained))},
		"unseen: in hand":         {ops: []history.Op{send("a", synced), sent("a", 0), poll("a", 0), plain(history.OpKill), plain(history.OpDrained)}, class: history.Unseen, proof: []int{0, 2, 4}},
		"unseen: being acked":     {ops: []history.Op{send("a", synced), sent("a", 0), poll("a", 0), ack(1, 0, synced), plain(history.OpKill), plain(history.OpDrained)}},
		"unseen: lost in a cut":   {ops: with(written, plain(history.OpCut), plain(history.OpDrained))},

		"duplicate":         {ops: with(synced, poll("a", 0), poll("b", 1), poll("c", 2), poll("a", 3)), class: history.DuplicateOffset, proof: []int{6, 9}},
		"duplicate: queues": {ops: with(synced, history.Op{Kind: history.OpPoll, Group: "G", Topic: "T", Queue: 1, ID: "a", Hash: 1}), class: history.DuplicateOffset, proof: []int{1, 6}},
		"not a duplicate":   {ops: with(synced, poll("a", 0), plain(history.OpLeave), poll("a", 0))},

		"inconsistent":                {ops: []history.Op{send("a", synced), send("b", synced), sent("a", 0), sent("b", 0)}, class: history.InconsistentOffsets, proof: []int{2, 3}},
		"inconsistent: after a cut":   {ops: after(with(written, plain(history.OpCut)), send("d", written), sent("d", 1))},
		"inconsistent: cut, deleted":  {ops: after(with(written, plain(history.OpCut), plain(history.OpDeleted)), send("d", written), sent("d", 1))},
		"inconsistent: deleted, cut":  {ops: after(with(written, plain(history.OpDeleted), plain(history.OpCut)), send("d", written), sent("d", 1))},
		"inconsistent: after a kill":  {ops: after(with(written, plain(history.OpKill)), send("d", written), read("d", 1)), class: history.InconsistentOffsets, proof: []int{3, 8}},
		"inconsistent: synced":        {ops: after(with(synced, plain(history.OpCut)), send("d", written), read("d", 1)), class: history.InconsistentOffsets, proof: []int{3, 8}},
		"inconsistent: back":          {ops: after(after(with(written, plain(history.OpCut)), empty...), read("c", 2)), class: history.InconsistentOffsets, proof: []int{5, 9}},
		"inconsistent: not there":     {ops: with(written, plain(history.OpCut), read("", 2), read("c", 2)), class: history.InconsistentOffsets, proof: []int{5, 8}},
		"inconsistent: rises":         {ops: after(after([]history.Op{send("x", synced), plain(history.OpKill)}, empty...), read("x", 0)), class: history.InconsistentOffsets, proof: []int{4}},
		"inconsistent: stays":         {ops: after([]history.Op{send("x", synced), plain(history.OpKill), read("x", 0)}, history.Op{Kind: history.OpRead, Topic: "T", ID: "x", Hash: 1})},
		"inconsistent: under way":     {ops: after(after([]history.Op{send("x", synced)}, empty...), sent("x", 0))},
		"inconsistent: seen at once":  {ops: after(with(written, plain(history.OpCut)), read("a", 0), read("b", 1))},
		"inconsistent: seen and gone": {ops: after(with(written, plain(history.OpCut), read("a", 0), plain(history.OpKill)), send("d", written), read("d", 0)), class: history.InconsistentOffsets, proof: []int{7, 10}},

		"aborted":                {ops: []history.Op{send("a", synced), ended(history.OpFailed, "a"), poll("a", 0)}, class: history.AbortedRead, proof: []int{0, 2}},
		"aborted: seen before":   {ops: []history.Op{send("a", synced), poll("a", 0), ended(history.OpFailed, "a")}, class: history.AbortedRead, proof: []int{1, 2}},
		"aborted: never sent":    {ops: []history.Op{poll("a", 0)}, class: history.AbortedRead, proof: []int{0}},
		"aborted: another topic": {ops: []history.Op{send("a", synced), {Kind: history.OpPoll, Topic: "U", ID: "a", Hash: 1}}, class: history.AbortedRead, proof: []int{0, 1}},
		"unknown is not aborted": {ops: []history.Op{send("a", synced), ended(history.OpUnknown, "a"), poll("a", 0)}},

		"wrong bytes": {ops: with(synced, history.Op{Kind: history.OpPoll, Topic: "T", ID: "a", Hash: 2}), class: history.WrongBytes, proof: []int{0, 6}},

		"back":              {ops: with(synced, poll("a", 0), poll("b", 1), poll("a", 0)), class: history.NonMonotonicPoll, proof: []int{7, 8}},
		"back: again":       {ops: with(synced, poll("a", 0), poll("a", 0)), class: history.NonMonotonicPoll, proof: []int{6, 7}},
		"back: retry":       {ops: with(synced, poll("a", 0), poll("b", 1), history.Op{Kind: history.OpPoll, Group: "G", Member: "a", Topic: "T", ID: "a", Hash: 1, Unordered: true})},
		"back: dealt out":   {ops: with(synced, poll("a", 0), poll("b", 1), plain(history.OpJoin), poll("a", 0))},
		"back: reset":       {ops: with(synced, poll("a", 0), poll("b", 1), calls(history.OpReset, 1), poll("a", 0))},
		"back: crash":       {ops: with(synced, poll("a", 0), poll("b", 1), plain(history.OpKill), poll("a", 0))},
		"back: other group": {ops: with(synced, poll("b", 1), history.Op{Kind: history.OpPoll, Group: "H", Member: "a", Topic: "T", ID: "a", Hash: 1})},

		"skipped":               {ops: with(synced, poll("a", 0), poll("c", 2)), class: history.SkippedPoll, proof: []int{2, 6, 7}},
		"skipped: acknowledged": {ops: with(synced, ack(1, 1, written), poll("a", 0), poll("c", 2))},
		"skipped: dropped":      {ops: with(synced, poll("a", 0), history.Op{Kind: history.OpDropped, Topic: "T", Offset: 2}, poll("c", 2))},
		"skipped: dealt out":    {ops: with(synced, poll("a", 0), plain(history.OpJoin), poll("c", 2))},

		"send before":             {ops: []history.Op{send("a", synced), sent("a", 1), send("b", synced), sent("b", 0)}, class: history.NonMonotonicSend, proof: []int{1, 2, 3}},
		"send before: concurrent": {ops: []history.Op{send("a", synced), send("b", synced), sent("a", 1), sent("b", 0)}},
		"send before: cut":        {ops: after(with(written, plain(history.OpCut)), send("d", written), sent("d", 0))},
		"send before: durable":    {ops: []history.Op{send("a", synced), sent("a", 3), plain(history.OpCut), send("e", written), sent("e", 2)}, class: history.NonMonotonicSend, proof: []int{2, 3, 4}},

		"again":                   {ops: with(synced, poll("a", 0), ack(1, 0, written), calls(history.OpAcked, 1), plain(history.OpLeave), poll("a", 0)), class: history.DeliveredAgain, proof: []int{7, 8, 10}},
		"again: kill":             {ops: with(synced, ack(1, 0, written), calls(history.OpAcked, 1), plain(history.OpKill), poll("a", 0)), class: history.DeliveredAgain},
		"again: cut":              {ops: with(synced, ack(1, 0, written), calls(history.OpAcked, 1), plain(history.OpCut), poll("a", 0))},
		"again: cut, synced":      {ops: with(synced, ack(1, 0, synced), calls(history.OpAcked, 1), plain(history.OpCut), poll("a", 0)), class: history.DeliveredAgain},
		"again: sync, cut":        {ops: with(synced, ack(1, 0, written), calls(history.OpAcked, 1), calls(history.OpSync, 2), calls(history.OpSyncDone, 2), plain(history.OpCut), poll("a", 0)), class: history.DeliveredAgain},
		"again: volatile":         {ops: with(synced, ack(1, 0, volatile), calls(history.OpAcked, 1), poll("a", 0)), class: history.DeliveredAgain},
		"again: volatile kill":    {ops: with(synced, ack(1, 0, volatile), calls(history.OpAcked, 1), plain(history.OpKill), poll("a", 0))},
		"again: not acked":        {ops: with(synced, ack(1, 0, synced), calls(history.OpUnacked, 1), poll("a", 0))},
		"again: no end":           {ops: with(synced, ack(1, 0, synced), poll("a", 0))},
		"again: reset":            {ops: with(synced, ack(1, 0, synced), calls(history.OpAcked, 1), calls(history.OpReset, 2), poll("a", 0))},
		"again: during reset":     {ops: with(synced, calls(history.OpReset, 2), ack(1, 0, synced), calls(history.OpAcked, 1), calls(history.OpResetDone, 2), poll("a", 0))},
		"again: after reset":      {ops: with(synced, calls(history.OpReset, 2), calls(history.OpResetDone, 2), ack(1, 0, synced), calls(history.OpAcked, 1), poll("a", 0)), class: history.DeliveredAgain},
		"again: other queue":      {ops: acked("a", resetQueue(1, 0), calls(history.OpResetDone, 2), poll("a", 0)), class: history.DeliveredAgain, proof: []int{3, 4, 7}},
		"again: volatile, during": {ops: with(synced, resetQueue(1, 0), ack(1, 0, volatile), calls(history.OpAcked, 1), calls(history.OpResetDone, 2), poll("a", 0))},
		"again: volatile reset":   {ops: with(synced, ack(1, 0, volatile), calls(history.OpAcked, 1), resetQueue(1, 0), calls(history.OpResetDone, 2), poll("a", 0))},
		"again: queue reset":      {ops: acked("a", resetQueue(0, 0), calls(history.OpResetDone, 2), poll("a", 0))},
		"again: rewound":          {ops: acked("a", calls(history.OpRewind, 2), calls(history.OpResetDone, 2), poll("a", 0))},
		"again: all topics":       {ops: with(synced, ack(1, 0, synced), calls(history.OpAcked, 1), history.Op{Kind: history.OpReset, Call: 2, Group: "G"}, poll("a", 0))},
		"again: twice acked": {ops: with(synced, ack(1, 0, synced), calls(history.OpAcked, 1), ack(2, 0, written), calls(history.OpUnacked, 2),
			plain(history.OpCut), poll("a", 0)), class: history.DeliveredAgain, proof: []int{6, 7, 11}},
		"again: volatile, firm": {ops: with(synced, ack(1, 0, volatile), calls(history.OpAcked, 1), ack(2, 0, synced), calls(history.OpAcked, 2),
			plain(history.OpCut), poll("a", 0)), class: history.DeliveredAgain, proof: []int{8, 9, 11}},
		"again: asked before":    {ops: with(synced, ack(1, 0, synced), plain(history.OpPolling), calls(history.OpAcked, 1), poll("a", 0))},
		"again: asked after":     {ops: with(synced, ack(1, 0, synced), calls(history.OpAcked, 1), plain(history.OpPolling), poll("a", 0)), class: history.DeliveredAgain, proof: []int{6, 7, 9}},
		"again: another message": {ops: slices.Concat(with(written, ack(1, 2, synced), calls(history.OpAcked, 1), plain(history.OpCut)), []history.Op{send("d", written), poll("d", 2)})},

		"damaged: gone":             {ops: with(synced, damaged("b"), plain(history.OpKill), poll("a", 0), poll("c", 2), read("", 1), plain(history.OpDrained))},
		"damaged: there":            {ops: with(synced, damaged("b"), plain(history.OpKill), poll("a", 0), poll("b", 1), poll("c", 2), plain(history.OpDrained))},
		"damaged: another one gone": {ops: with(synced, damaged("b"), plain(history.OpKill), poll("a", 0), poll("b", 1), plain(history.OpDrained)), class: history.Unseen, proof: []int{4, 5, 10}},
		"damaged: read":             {ops: after(with(synced, damaged("b"), damaged("c"), plain(history.OpKill)), empty...), class: history.LostWrite, proof: []int{0, 1, 10}},
		"damaged: wrong":            {ops: with(synced, damaged("a"), history.Op{Kind: history.OpPoll, Topic: "T", ID: "a", Hash: 2}), class: history.WrongBytes, proof: []int{0, 7}},
		"damaged: elsewhere":        {ops: with(synced, damaged("c"), poll("c", 3)), class: history.DuplicateOffset, proof: []int{5, 7}},
		"damaged: given out again":  {ops: with(synced, damaged("c"), send("d", synced), poll("d", 2)), class: history.InconsistentOffsets, proof: []int{5, 8}},
		"damaged: ack":              {ops: with(synced, ack(1, 0, synced), ack(1, 1, synced), calls(history.OpAcked, 1), damagedAck(0), plain(history.OpKill), poll("a", 0))},
		"damaged: ack, not needed":  {ops: with(synced, ack(1, 2, synced), calls(history.OpAcked, 1), damagedAck(2), poll("a", 0), poll("b", 1), plain(history.OpDrained))},
		"damaged: another ack":      {ops: with(synced, ack(1, 0, synced), ack(1, 1, synced), calls(history.OpAcked, 1), damagedAck(0), plain(history.OpKill), poll("b", 1)), class: history.DeliveredAgain, proof: []int{7, 8, 11}},

		"torn: gone":                 {ops: after(with(synced, torn(1), read("a", 0)), send("d", synced), sent("d", 1), read("", 2), plain(history.OpKill), read("d", 1))},
		"torn: there":                {ops: with(synced, torn(1), poll("a", 0), poll("b", 1), poll("c", 2), plain(history.OpDrained))},
		"torn: not behind":           {ops: after(with(synced, torn(1)), empty...), class: history.LostWrite, proof: []int{0, 1, 8}},
		"torn: given out not behind": {ops: after(with(synced, torn(2)), send("d", synced), read("d", 1)), class: history.InconsistentOffsets, proof: []int{3, 8}},
		"torn: seen":                 {ops: with(synced, torn(1), read("b", 1), read("", 1)), class: history.LostWrite, proof: []int{2, 7, 8}},
		"torn: sends":                {ops: after(with(written, torn(1), plain(history.OpCut)), send("d", written), sent("d", 0))},
		"torn: queues":               {ops: with(synced, history.Op{Kind: history.OpTorn, Topic: "T", Queue: 1}, read("", 2)), class: history.LostWrite, proof: []int{4, 5, 7}},

		"malformed: damaged":      {ops: []history.Op{damaged("a")}, class: history.Malformed},
		"malformed: damaged ack":  {ops: with(synced, damagedAck(1)), class: history.Malformed},
		"malformed: no id":        {ops: []history.Op{send("", synced)}, class: history.Malformed},
		"malformed: twice":        {ops: []history.Op{send("a", synced), send("a", synced)}, class: history.Malformed, proof: []int{1}},
		"malformed: no beginning": {ops: []history.Op{sent("a", 0)}, class: history.Malformed},
		"malformed: no kind":      {ops: []history.Op{{}}, class: history.Malformed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := history.Check(row.ops)
			if row.class == "" {
				require.NoError(t, r.Err())
				return
			}
			want := map[history.Class]int{row.class: max(1, row.count)}
			require.Equal(t, want, r.Counts, "%v", r)
			require.Error(t, r.Err())
			if row.proof != nil {
				require.Equal(t, row.proof, r.Anomalies[0].Ops, "%v", r)
			}
			for _, a := range r.Anomalies {
				require.NotEmpty(t, a.Ops)
				require.NotEmpty(t, a.What)
			}
		})
	}
}

func TestReport(t *testing.T) {
	t.Parallel()
	var ops []history.Op
	for i := range 100 {
		ops = append(ops, poll(strconv.Itoa(i), 0))
	}
	r := history.Check(ops)
	require.Equal(t, 100, r.Counts[history.AbortedRead])
	require.Len(t, r.Anomalies, 20)
	require.ErrorContains(t, r.Err(), `aborted read: 100`)
	require.ErrorContains(t, r.Err(), `{"op":"poll","id":"7","topic":"T","hash":1,"group":"G","member":"a"}`)

	r = history.Check(with(synced, send("d", synced), plain(history.OpKill), plain(history.OpCut), poll("a", 0), ack(1, 0, written), calls(history.OpAcked, 1)))
	require.NoError(t, r.Err())
	require.Equal(t, []int{4, 3, 1, 1, 1, 1, 1}, []int{r.Sent, r.Acknowledged, r.Unknown, r.Delivered, r.Acks, r.Kills, r.Cuts})
}

// TestForgiven: what a power cut may take is counted.
func TestForgiven(t *testing.T) {
	t.Parallel()
	r := history.Check(with(written, poll("a", 0), ack(1, 0, written), calls(history.OpAcked, 1), plain(history.OpCut),
		poll("a", 0), read("b", 1), read("", 2)))
	require.NoError(t, r.Err())
	require.Equal(t, []int{1, 1}, []int{r.Gone, r.Repeated})
}

// TestChecker: an error is found with the operation that proves it.
func TestChecker(t *testing.T) {
	t.Parallel()
	c := history.NewChecker()
	c.Add(with(synced)...)
	require.Zero(t, c.Report().Errors())
	c.Add(plain(history.OpCut), read("", 1))
	require.Equal(t, 1, c.Report().Errors())
	require.Equal(t, 8, c.Report().Operations())
	require.Equal(t, history.Check(c.History()).Counts, c.Report().Counts)
}

func TestJSON(t *testing.T) {
	t.Parallel()
	var rec history.Recorder
	rec.Add(with(synced)...)
	require.EqualValues(t, 1, rec.Begin(ack(0, 1, synced), ack(0, 2, synced)))
	require.EqualValues(t, 2, rec.Begin(calls(history.OpSync, 0)))
	rec.Add(calls(history.OpAcked, 1), calls(history.OpSyncDone, 2), damaged("b"), damagedAck(1), torn(2))
	want := rec.History()
	require.Equal(t, []int64{1, 1, 2}, []int64{want[6].Call, want[7].Call, want[8].Call})

	var b bytes.Buffer
	require.NoError(t, history.Write(&b, want))
	text := b.Bytes()
	got, err := history.Read(bytes.NewReader(text))
	require.NoError(t, err)
	require.Equal(t, want, got)

	got, err = history.Read(bytes.NewReader(text[:len(text)-5])) // killed while it wrote
	require.NoError(t, err)
	require.Equal(t, want[:len(want)-1], got)
	_, err = history.Read(bytes.NewReader([]byte("{}\nnonsense\n{}\n")))
	require.ErrorContains(t, err, "operation 1")
}
