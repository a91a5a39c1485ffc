package linear_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/internal/history"
	"github.com/pocketmq/mq/internal/history/toy"
	"github.com/pocketmq/mq/verify/linear"
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

func calls(kind history.Kind, call int64) history.Op {
	return history.Op{Kind: kind, Call: call, Group: "G", Topic: "T"}
}

func plain(kind history.Kind) history.Op {
	return history.Op{Kind: kind, Group: "G", Member: "a", Topic: "T"}
}

const (
	synced  = history.Synced
	written = history.Written
)

// with appends to a history in which a, b and c were acknowledged as d.
func with(d history.Durability, more ...history.Op) []history.Op {
	return append([]history.Op{send("a", d), sent("a", 0), send("b", d), sent("b", 1), send("c", d), sent("c", 2)}, more...)
}

// TestCheck has what a list can explain and what it cannot.
func TestCheck(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		ops []history.Op
		ok  bool
	}{
		"in order":          {with(synced, poll("a", 0), read("c", 2), read("", 3)), true},
		"gap":               {[]history.Op{send("a", synced), sent("a", 1)}, false},
		"gap of an unknown": {[]history.Op{send("x", synced), send("a", synced), sent("a", 1)}, true},
		"gap of a failed":   {[]history.Op{send("x", synced), send("a", synced), ended(history.OpFailed, "x"), sent("a", 1)}, false},
		"read before":       {[]history.Op{plain(history.OpKill), read("a", 0), send("a", synced), sent("a", 0)}, false},
		"read meanwhile":    {[]history.Op{send("a", synced), read("a", 0), sent("a", 0)}, true},
		"not there":         {with(synced, plain(history.OpKill), read("", 1)), false},
		"not there yet":     {[]history.Op{plain(history.OpPolling), send("a", synced), sent("a", 0), {Kind: history.OpRead, Topic: "T", Group: "G", Member: "a"}}, true},
		"wrong place":       {with(synced, read("a", 1)), false},
		"cut, synced":       {with(synced, plain(history.OpCut), read("", 2)), false},
		"cut, written":      {with(written, plain(history.OpCut), read("a", 0), read("", 1)), true},
		"cut, not a prefix": {with(written, plain(history.OpCut), read("", 0), read("b", 1)), false},
		"kill, written":     {with(written, plain(history.OpKill), read("", 2)), false},
		"sync, cut":         {with(written, calls(history.OpSync, 1), calls(history.OpSyncDone, 1), plain(history.OpCut), read("", 2)), false},
		"given out again":   {with(written, plain(history.OpCut), send("d", written), sent("d", 1), read("a", 0), read("d", 1)), true},
		"unknown, late":     {[]history.Op{send("a", synced), plain(history.OpKill), read("", 0), plain(history.OpPolling), read("a", 0)}, false},
		"unknown, there":    {[]history.Op{send("a", synced), plain(history.OpKill), read("a", 0)}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ok, err := linear.Check(row.ops, "T", 0, time.Minute)
			require.NoError(t, err)
			require.Equal(t, row.ok, ok)
		})
	}
}

// TestRandomSound: what a sound queue does is sound.
func TestRandomSound(t *testing.T) {
	t.Parallel()
	for seed := range uint64(300) {
		ops, _ := toy.Run(seed, 40, "")
		for q := range 2 {
			ok, err := linear.Check(ops, "T", q, time.Minute)
			require.NoError(t, err, "seed %d", seed)
			require.True(t, ok, "seed %d, queue %d", seed, q)
		}
	}
}
