package record_test

import (
	"encoding/hex"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/internal/record"
)

// small is what the kinds without a body have in common.
type small interface {
	Validate() error
	Size() int
	Put(dst []byte)
}

func put(t testing.TB, r small) []byte {
	t.Helper()
	require.NoError(t, r.Validate())
	payload := make([]byte, r.Size())
	r.Put(payload)
	return payload
}

// decodeSmall decodes whatever the payload says it is.
func decodeSmall(payload []byte) (small, error) {
	switch record.KindOf(payload) {
	case record.KindAck:
		var a record.Ack
		return &a, record.DecodeAck(payload, &a)
	case record.KindTopic:
		v, err := record.DecodeTopic(payload)
		return &v, err
	case record.KindTopicDelete:
		v, err := record.DecodeTopicDelete(payload)
		return &v, err
	case record.KindGroup:
		v, err := record.DecodeGroup(payload)
		return &v, err
	case record.KindGroupDelete:
		v, err := record.DecodeGroupDelete(payload)
		return &v, err
	case record.KindSettle:
		v, err := record.DecodeSettle(payload)
		return &v, err
	case record.KindHandout:
		var h record.Handout
		return &h, record.DecodeHandout(payload, &h)
	default:
		v, err := record.DecodeStart(payload)
		return &v, err
	}
}

const (
	lastPosition = record.MaxPosition - 8
	lastOffset   = record.MaxOffset - 1
)

// smallRows are values with their bytes, which stores on disk hold.
var smallRows = map[string]struct {
	r     small
	bytes string // kind and fields, a space between them
}{
	"ack": {
		&record.Ack{Group: 64, Start: 2048, Topic: 72, Queue: 3,
			Ranges: []record.Range{{From: 5, To: 9}, {From: 9, To: 10}, {From: 300, To: 600}}},
		"02 08 8002 09 03 03 05 04 00 01 a202 ac02",
	},
	"ack of nothing": {
		&record.Ack{Group: 64, Start: 64, Topic: 64},
		"02 08 08 08 00 00",
	},
	"ack of the last": {
		&record.Ack{Group: record.GroupID(lastPosition), Start: lastPosition, Topic: record.TopicID(lastPosition),
			Queue: record.MaxQueues - 1, Ranges: []record.Range{{From: 0, To: record.MaxOffset}}},
		"02 ffffffffffff3f ffffffffffff3f ffffffffffff3f ff07 01 00 80808080808040",
	},
	"handout": {
		&record.Handout{Group: 64, Start: 2048, Topic: 72, Queue: 3, Epoch: 300, Attempt: 2, Ranges: []record.Range{{From: 5, To: 9}}},
		"0a 08 8002 09 03 ac02 02 01 05 04",
	},
	"topic": {
		&record.Topic{Name: "Order|Topic", Queues: 4, Synced: true},
		"03 00 01 04 0b 4f726465727c546f706963",
	},
	"topic carried on": {
		&record.Topic{ID: 64, Name: "\x00", Queues: 2, Ends: []record.Offset{0, lastOffset}},
		"03 08 02 02 01 00 00 ffffffffffff3f",
	},
	"topic without messages": {
		&record.Topic{ID: 64, Queues: 1, Ends: []record.Offset{0}},
		"03 08 02 01 00 00",
	},
	"topic of many queues": {
		&record.Topic{Name: "t", Queues: record.MaxQueues, Ends: make([]record.Offset, record.MaxQueues)},
		"03 00 02 8008 01 74 " + strings.Repeat("00", record.MaxQueues),
	},
	"topic with a window": {
		&record.Topic{ID: 64, Name: "t", Queues: 1, Ends: []record.Offset{5}, Window: record.Window{For: 60_000, Count: 300}},
		"03 08 06 01 01 74 05 e0d403 ac02",
	},
	"topic with the largest window": {
		&record.Topic{Name: "t", Queues: 1, Window: record.Window{For: record.MaxWindowFor - 1, Count: record.MaxWindowCount}},
		"03 00 04 01 01 74 ffffffffffff3f 808040",
	},
	"topic deletion": {&record.TopicDelete{ID: 1 << 20}, "04 808008"},
	"group":          {&record.Group{Name: "g"}, "05 00 00 01 67 00"},
	"group without limit": {
		&record.Group{Name: "g", Policy: &record.Policy{Attempts: -1}},
		"05 00 01 01 67 00 01 00",
	},
	"group with a table": {
		&record.Group{ID: 64, Name: "g", Policy: &record.Policy{Attempts: 3, Delays: []time.Duration{0, 300}}},
		"05 08 01 01 67 00 04 01 02 00 ac02",
	},
	"group with an exponential": {
		&record.Group{Name: "g", Policy: &record.Policy{Initial: 5, Limit: 300, Jitter: record.JitterUnit}},
		"05 00 01 01 67 00 00 02 05 ac02 c0843d",
	},
	"member":         {&record.Group{ID: 64, Name: "g", Instance: "i1"}, "05 08 00 01 67 02 6931"},
	"group deletion": {&record.GroupDelete{ID: 64}, "06 08"},
	"start": {
		&record.Start{Group: 64, Topic: 72, Subscription: "A || B", Offsets: []record.Offset{0, 128}},
		"07 00 08 09 00 06 41207c7c2042 02 00 8001",
	},
	"reset": {
		&record.Start{ID: 80, Group: 64, Topic: 72, Reset: true},
		"07 0a 08 09 01 00 00",
	},
	"settlement": {&record.Settle{Topic: 72, Due: record.Due{At: 300, Position: 64}}, "09 09 ac02 08"},
	"settlement of the last": {
		&record.Settle{Topic: record.TopicID(lastPosition), Due: record.Due{At: math.MaxInt64, Position: lastPosition}},
		"09 ffffffffffff3f ffffffffffffffff7f ffffffffffff3f",
	},
}

func TestKindsRoundTrip(t *testing.T) {
	t.Parallel()
	for name, row := range smallRows {
		t.Run(name, func(t *testing.T) {
			payload := put(t, row.r)
			require.Equal(t, strings.ReplaceAll(row.bytes, " ", ""), hex.EncodeToString(payload))
			got, err := decodeSmall(payload)
			require.NoError(t, err)
			require.Equal(t, row.r, got)

			n, ok := record.HeadLen(payload)
			require.True(t, ok)
			require.Equal(t, len(payload), n, "no body")
		})
	}
}

// TestKindsDamaged: no prefix of a record is a record, nor is one with a byte
// more; no byte flipped anywhere makes a decoder panic or forgive.
func TestKindsDamaged(t *testing.T) {
	t.Parallel()
	for name, row := range smallRows {
		t.Run(name, func(t *testing.T) {
			payload := put(t, row.r)
			for n := 1; n < len(payload); n++ {
				_, err := decodeSmall(payload[:n])
				require.ErrorIs(t, err, record.ErrMalformed, "first %d bytes", n)
			}
			_, err := decodeSmall(append(payload[:len(payload):len(payload)], 0))
			require.ErrorIs(t, err, record.ErrMalformed)
			for i := 1; i < min(len(payload), 64); i++ {
				for bit := range 8 {
					damaged := append([]byte(nil), payload...)
					damaged[i] ^= 1 << bit
					if r, err := decodeSmall(damaged); err == nil {
						require.Equal(t, damaged, put(t, r))
					}
				}
			}
		})
	}
}

func TestKindsDecodeErrors(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		payload string
		want    error
	}{
		"empty":                    {"", record.ErrMalformed},
		"ack long form":            {"02 8800 08 08 00 00", record.ErrMalformed},
		"ack number without end":   {"02 ffffffffffffffffffff", record.ErrMalformed},
		"ack number overflows":     {"02 ffffffffffffffffff7f 08 08 00 00", record.ErrMalformed},
		"ack no group":             {"02 00 08 08 00 00", record.ErrMalformed},
		"ack no start":             {"02 08 00 08 00 00", record.ErrMalformed},
		"ack no topic":             {"02 08 08 00 00 00", record.ErrMalformed},
		"ack position too large":   {"02 80808080808040 08 08 00 00", record.ErrMalformed},
		"ack queue too large":      {"02 08 08 08 8008 00", record.ErrMalformed},
		"ack more ranges than fit": {"02 08 08 08 00 ffffffff0f 00 01", record.ErrMalformed},
		"ack empty range":          {"02 08 08 08 00 01 05 00", record.ErrMalformed},
		"ack beyond the last":      {"02 08 08 08 00 01 01 80808080808040", record.ErrMalformed},
		"ack sum beyond the last":  {"02 08 08 08 00 02 00 80808080808040 00 01", record.ErrMalformed},
		"topic unknown flag":       {"03 00 08 01 00", record.ErrUnknown},
		"topic window missing":     {"03 00 04 01 00", record.ErrMalformed},
		"topic window for nothing": {"03 00 04 01 00 00 01", record.ErrMalformed},
		"topic window of nothing":  {"03 00 04 01 00 01 00", record.ErrMalformed},
		"topic window too long":    {"03 00 04 01 00 80808080808040 01", record.ErrMalformed},
		"topic window too large":   {"03 00 04 01 00 01 818040", record.ErrMalformed},
		"topic no queues":          {"03 00 00 00 00", record.ErrMalformed},
		"topic too many queues":    {"03 00 00 8108 00", record.ErrMalformed},
		"topic name beyond":        {"03 00 00 01 05 61", record.ErrMalformed},
		"topic name huge":          {"03 00 00 01 ffffffffffffffff7f 61", record.ErrMalformed},
		"topic ends missing":       {"03 00 02 02 00 00", record.ErrMalformed},
		"topic end too large":      {"03 00 02 01 00 80808080808040", record.ErrMalformed},
		"topic deletion of none":   {"04 00", record.ErrMalformed},
		"group deletion of none":   {"06 00", record.ErrMalformed},
		"group instance missing":   {"05 00 00 00", record.ErrMalformed},
		"group unknown flag":       {"05 00 02 01 67 00", record.ErrUnknown},
		"policy unknown shape":     {"05 00 01 01 67 00 00 03", record.ErrUnknown},
		"policy no delays":         {"05 00 01 01 67 00 00 01 00", record.ErrMalformed},
		"policy too many delays":   {"05 00 01 01 67 00 00 01 8108" + strings.Repeat("00", 1025), record.ErrMalformed},
		"policy delay too long":    {"05 00 01 01 67 00 00 01 01 ffffffffffffffff7f", record.ErrMalformed},
		"policy nothing initial":   {"05 00 01 01 67 00 00 02 00 05 00", record.ErrMalformed},
		"policy limit below":       {"05 00 01 01 67 00 00 02 05 04 00", record.ErrMalformed},
		"policy jitter above one":  {"05 00 01 01 67 00 00 02 05 05 c1843d", record.ErrMalformed},
		"start no group":           {"07 00 00 09 00 00 00", record.ErrMalformed},
		"start no topic":           {"07 00 08 00 00 00 00", record.ErrMalformed},
		"start unknown flag":       {"07 00 08 09 80 00 00", record.ErrUnknown},
		"settlement of no time":    {"09 08 00 08", record.ErrMalformed},
		"settlement of no record":  {"09 08 01 00", record.ErrMalformed},
		"settlement time too late": {"09 08 80808080808080808001 08", record.ErrMalformed},
		"settlement of no topic":   {"09 00 01 08", record.ErrMalformed},
		"start too many offsets":   {"07 00 08 09 00 00 8108" + strings.Repeat("00", 1025), record.ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			payload, err := hex.DecodeString(strings.ReplaceAll(row.payload, " ", ""))
			require.NoError(t, err)
			_, err = decodeSmall(payload)
			require.ErrorIs(t, err, row.want)
		})
	}
}

// TestDecodeAnotherKind: a decoder never takes one kind for another.
func TestDecodeAnotherKind(t *testing.T) {
	t.Parallel()
	for name, row := range smallRows {
		t.Run(name, func(t *testing.T) {
			payload := put(t, row.r)
			for k := range record.KindHandout + 2 {
				if k == record.Kind(payload[0]) {
					continue
				}
				other := append([]byte{byte(k)}, payload[1:]...)
				errs := map[record.Kind]error{record.Kind(payload[0]): nil}
				errs[record.KindMessage] = record.DecodeMessage(payload, new(record.View))
				errs[record.KindAck] = record.DecodeAck(other, new(record.Ack))
				_, errs[record.KindTopic] = record.DecodeTopic(other)
				_, errs[record.KindTopicDelete] = record.DecodeTopicDelete(other)
				_, errs[record.KindGroup] = record.DecodeGroup(other)
				_, errs[record.KindGroupDelete] = record.DecodeGroupDelete(other)
				_, errs[record.KindStart] = record.DecodeStart(other)
				_, errs[record.KindSettle] = record.DecodeSettle(other)
				errs[record.KindHandout] = record.DecodeHandout(other, new(record.Handout))
				require.ErrorIs(t, errs[record.Kind(payload[0])], record.ErrMalformed)
			}
		})
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	ranges := func(rs ...record.Range) *record.Ack {
		return &record.Ack{Group: 8, Start: 8, Topic: 8, Ranges: rs}
	}
	for name, r := range map[string]small{
		"ack without group":        &record.Ack{Start: 8, Topic: 8},
		"ack without start":        &record.Ack{Group: 8, Topic: 8},
		"ack without topic":        &record.Ack{Group: 8, Start: 8},
		"ack unaligned":            &record.Ack{Group: 9, Start: 8, Topic: 8},
		"ack position too large":   &record.Ack{Group: 8, Start: record.MaxPosition, Topic: 8},
		"ack queue negative":       &record.Ack{Group: 8, Start: 8, Topic: 8, Queue: -1},
		"ack queue too large":      &record.Ack{Group: 8, Start: 8, Topic: 8, Queue: record.MaxQueues},
		"ack range negative":       ranges(record.Range{From: -1, To: 1}),
		"ack range empty":          ranges(record.Range{From: 1, To: 1}),
		"ack range backwards":      ranges(record.Range{From: 2, To: 1}),
		"ack range too large":      ranges(record.Range{From: 0, To: record.MaxOffset + 1}),
		"ack ranges overlap":       ranges(record.Range{From: 0, To: 2}, record.Range{From: 1, To: 3}),
		"ack ranges descend":       ranges(record.Range{From: 4, To: 5}, record.Range{From: 1, To: 2}),
		"handout without group":    &record.Handout{Start: 8, Topic: 8, Attempt: 1},
		"handout of no attempt":    &record.Handout{Group: 8, Start: 8, Topic: 8},
		"handout queue negative":   &record.Handout{Group: 8, Start: 8, Topic: 8, Attempt: 1, Queue: -1},
		"handout range empty":      &record.Handout{Group: 8, Start: 8, Topic: 8, Attempt: 1, Ranges: []record.Range{{From: 1, To: 1}}},
		"topic negative id":        &record.Topic{ID: -8, Queues: 1},
		"topic without queues":     &record.Topic{},
		"topic of too many queues": &record.Topic{Queues: record.MaxQueues + 1},
		"topic with too few ends":  &record.Topic{Queues: 2, Ends: make([]record.Offset, 1)},
		"topic with empty ends":    &record.Topic{Queues: 1, Ends: []record.Offset{}},
		"topic with negative end":  &record.Topic{Queues: 1, Ends: []record.Offset{-1}},
		"topic deletion of none":   &record.TopicDelete{},
		"group unaligned":          &record.Group{ID: 1},
		"group deletion of none":   &record.GroupDelete{},
		"policy attempts":          &record.Group{Policy: &record.Policy{Attempts: -2}},
		"policy too many attempts": &record.Group{Policy: &record.Policy{Attempts: record.MaxAttempts}},
		"policy two kinds":         &record.Group{Policy: &record.Policy{Delays: make([]time.Duration, 1), Initial: 1, Limit: 1}},
		"policy negative delay":    &record.Group{Policy: &record.Policy{Delays: []time.Duration{-1}}},
		"policy too many delays":   &record.Group{Policy: &record.Policy{Delays: make([]time.Duration, record.MaxDelays+1)}},
		"policy jitter alone":      &record.Group{Policy: &record.Policy{Jitter: 1}},
		"policy limit below":       &record.Group{Policy: &record.Policy{Initial: 2, Limit: 1}},
		"policy limit too long":    &record.Group{Policy: &record.Policy{Initial: 2, Limit: record.MaxDelay + 1}},
		"start negative id":        &record.Start{ID: -8, Group: 8, Topic: 8},
		"start without group":      &record.Start{Topic: 8},
		"start without topic":      &record.Start{Group: 8},
		"start at negative offset": &record.Start{Group: 8, Topic: 8, Offsets: []record.Offset{-1}},
		"settlement of no time":    &record.Settle{Topic: 8, Due: record.Due{Position: 8}},
		"settlement before time":   &record.Settle{Topic: 8, Due: record.Due{At: -1, Position: 8}},
		"settlement of no record":  &record.Settle{Topic: 8, Due: record.Due{At: 1}},
		"settlement of no topic":   &record.Settle{Due: record.Due{At: 1, Position: 8}},
		"start of too many queues": &record.Start{Group: 8, Topic: 8, Offsets: make([]record.Offset, record.MaxQueues+1)},
	} {
		t.Run(name, func(t *testing.T) { require.ErrorIs(t, r.Validate(), record.ErrInvalid) })
	}
}

// TestPutPanicsOnAnotherSize: the log must not get a record cut or padded.
func TestPutPanicsOnAnotherSize(t *testing.T) {
	t.Parallel()
	for name, row := range smallRows {
		t.Run(name, func(t *testing.T) {
			room := make([]byte, row.r.Size()+2)
			require.Panics(t, func() { row.r.Put(room[:row.r.Size()-1]) })
			require.Panics(t, func() { row.r.Put(room[:row.r.Size()+1]) })
			require.Zero(t, room[row.r.Size()+1])
		})
	}
}

func TestKindString(t *testing.T) {
	t.Parallel()
	require.Equal(t, "message", record.KindMessage.String())
	require.Equal(t, "start", record.KindStart.String())
	require.Equal(t, "kind 0", record.Kind(0).String())
	require.Equal(t, "kind 11", record.Kind(11).String())
	for k := record.KindMessage; k <= record.KindHandout; k++ {
		require.NotContains(t, k.String(), "kind ")
	}
}

func TestHeadLen(t *testing.T) {
	t.Parallel()
	_, ok := record.HeadLen(nil)
	require.False(t, ok, "nothing")
	_, ok = record.HeadLen(make([]byte, 64))
	require.False(t, ok, "a page never written")
	_, ok = record.HeadLen([]byte{byte(record.KindMessage)})
	require.False(t, ok, "a message cut short")
	payload := encode(t, record.Message{Topic: 8, Tag: "tag", Keys: []string{"key"}}, "")
	_, ok = record.HeadLen(payload[:len(payload)-1])
	require.False(t, ok, "a head cut short")
	_, ok = record.HeadLen([]byte{byte(record.KindDelayed)})
	require.False(t, ok, "a delayed message cut short")
	n, ok := record.HeadLen([]byte{200, 1, 2})
	require.True(t, ok, "a later version's kind: its hash can be checked")
	require.Equal(t, 3, n)
}

func TestAckAllocations(t *testing.T) {
	a := record.Ack{Group: 64, Start: 64, Topic: 64, Ranges: []record.Range{{From: 5, To: 9}, {From: 1000, To: 1001}}}
	payload := put(t, &a)
	got := record.Ack{Ranges: make([]record.Range, 0, 2)}
	require.Zero(t, testing.AllocsPerRun(100, func() {
		if a.Validate() != nil || a.Size() != len(payload) {
			t.Fatal("size")
		}
		a.Put(payload)
		if err := record.DecodeAck(payload, &got); err != nil {
			t.Fatal(err)
		}
	}))
	require.Equal(t, a, got)
}
