package record_test

import (
	"bytes"
	"testing"

	"github.com/pocketmq/mq/internal/record"
)

// Every target asks the same: the decoder does not panic, and what it accepts
// encodes to the bytes it came from.

func FuzzDecodeMessage(f *testing.F) {
	for _, m := range []record.Message{{Topic: 8}, {Topic: 64, Queue: 1, Offset: 2, StoredAt: 3, Tag: "t"}, {
		Topic: 64, BornAt: 1, ShardingKey: "s", DedupKey: "d", Keys: []string{"k", "k"}, Properties: map[string]string{"a": "1", "b": ""},
	}} {
		f.Add(encode(f, m, "body"))
	}
	for _, again := range againRows {
		if again.DeliverAt == 0 {
			f.Add(encode(f, record.Message{Topic: 64, BornAt: 1, Tag: "t", Again: again, Keys: []string{"k"}}, "body"))
		}
	}
	f.Fuzz(func(t *testing.T, payload []byte) { fuzzMessage(t, payload, record.DecodeMessage) })
}

func FuzzDecodeDelayed(f *testing.F) {
	for _, again := range againRows {
		if again.DeliverAt != 0 {
			f.Add(encode(f, record.Message{Topic: 64, Tag: "t", Again: again, ShardingKey: "s"}, "body"))
		}
	}
	f.Fuzz(func(t *testing.T, payload []byte) { fuzzMessage(t, payload, record.DecodeDelayed) })
}

func fuzzMessage(t *testing.T, payload []byte, decode func([]byte, *record.View) error) {
	var v record.View
	if decode(payload, &v) != nil {
		return
	}
	var m record.Message
	v.Unpack(string(v.Text()), &m)
	if again := encode(t, m, string(v.Body)); !bytes.Equal(payload, again) {
		t.Fatalf("%x\nbecame\n%x", payload, again)
	}
	if n, ok := record.HeadLen(payload); !ok || n != len(payload)-len(v.Body) {
		t.Fatalf("HeadLen: %d, %v", n, ok)
	}
	if len(m.Keys) != v.Keys() || len(m.Properties) != v.Properties() {
		t.Fatal("counts")
	}
	var again record.Again
	if m.Again != nil {
		again = *m.Again
	}
	if v.DeliverAt() != again.DeliverAt || v.Identity() != again.Identity || v.Due() != again.Due ||
		(v.Origin() == nil) != (again.Origin == nil) {
		t.Fatal("fields of what is stored again")
	}
}

// FuzzHeadLen: the head of a payload is asked for before its hash was checked.
func FuzzHeadLen(f *testing.F) {
	f.Add(encode(f, full(), "body"))
	f.Fuzz(func(t *testing.T, payload []byte) {
		if n, ok := record.HeadLen(payload); ok && (n < 1 || n > len(payload)) {
			t.Fatalf("%d of %d", n, len(payload))
		}
	})
}

func FuzzDecodeAck(f *testing.F)         { fuzzSmall(f, record.KindAck) }
func FuzzDecodeTopic(f *testing.F)       { fuzzSmall(f, record.KindTopic) }
func FuzzDecodeTopicDelete(f *testing.F) { fuzzSmall(f, record.KindTopicDelete) }
func FuzzDecodeGroup(f *testing.F)       { fuzzSmall(f, record.KindGroup) }
func FuzzDecodeGroupDelete(f *testing.F) { fuzzSmall(f, record.KindGroupDelete) }
func FuzzDecodeStart(f *testing.F)       { fuzzSmall(f, record.KindStart) }
func FuzzDecodeSettle(f *testing.F)      { fuzzSmall(f, record.KindSettle) }
func FuzzDecodeHandout(f *testing.F)     { fuzzSmall(f, record.KindHandout) }

func fuzzSmall(f *testing.F, k record.Kind) {
	for _, row := range smallRows {
		if payload := put(f, row.r); record.KindOf(payload) == k {
			f.Add(payload[1:])
		}
	}
	f.Fuzz(func(t *testing.T, fields []byte) { // the kind is given: half the inputs would miss it
		payload := append([]byte{byte(k)}, fields...)
		r, err := decodeSmall(payload)
		if err != nil {
			return
		}
		if again := put(t, r); !bytes.Equal(payload, again) {
			t.Fatalf("%x\nbecame\n%x", payload, again)
		}
	})
}
