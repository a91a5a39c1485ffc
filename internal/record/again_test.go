package record_test

import (
	"encoding/binary"
	"encoding/hex"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/internal/record"
)

var againRows = map[string]*record.Again{
	"delayed":       {DeliverAt: 1},
	"delayed last":  {DeliverAt: math.MaxInt64},
	"carried":       {DeliverAt: 1_700_000_000_000, Identity: record.Identity{Epoch: 3, Position: 64}},
	"delivered":     {Identity: record.Identity{Position: lastPosition}, Due: record.Due{At: 300, Position: 72}},
	"retry waits":   {DeliverAt: 300, Identity: record.Identity{Epoch: math.MaxUint32, Position: 8}, Origin: origin()},
	"retry":         {Due: record.Due{At: math.MaxInt64, Position: 8}, Origin: origin()},
	"dead letter":   {Identity: record.Identity{Position: 8}, Origin: &record.Origin{}},
	"longest":       longestAgain(),
	"longest waits": {DeliverAt: 1, Origin: longestAgain().Origin},
}

func origin() *record.Origin {
	return &record.Origin{Attempts: 17, Topic: "Orders", Queue: 3, Offset: 300, LastError: "no\x00 stock"}
}

func longestAgain() *record.Again {
	return &record.Again{
		Identity: record.Identity{Epoch: 1, Position: 8},
		Due:      record.Due{At: 1, Position: 8},
		Origin: &record.Origin{
			Attempts: record.MaxAttempts - 1, Queue: record.MaxQueues - 1, Offset: lastOffset,
			Topic:     strings.Repeat("t", record.MaxOriginTopic),
			LastError: strings.Repeat("e", record.MaxLastError),
		},
	}
}

func decoderOf(payload []byte) func([]byte, *record.View) error {
	if record.KindOf(payload) == record.KindDelayed {
		return record.DecodeDelayed
	}
	return record.DecodeMessage
}

func TestAgainRoundTrip(t *testing.T) {
	t.Parallel()
	for name, again := range againRows {
		t.Run(name, func(t *testing.T) {
			for _, m := range []record.Message{
				{Topic: 8, Again: again},
				{Topic: 64, Queue: 3, StoredAt: 9, BornAt: 7, Tag: "T", ShardingKey: "s", Keys: []string{"k"},
					Properties: map[string]string{"n": "v"}, Again: again},
			} {
				payload := encode(t, m, "body")
				want := record.KindMessage
				if again.DeliverAt != 0 {
					want = record.KindDelayed
				}
				require.Equal(t, want, record.KindOf(payload))
				var v record.View
				require.NoError(t, decoderOf(payload)(payload, &v))
				require.Equal(t, "body", string(v.Body))
				require.Equal(t, again.DeliverAt, v.DeliverAt())
				require.Equal(t, again.Identity, v.Identity())
				require.Equal(t, again.Due, v.Due())
				require.Equal(t, again.Origin, v.Origin())
				var got record.Message
				v.Unpack(string(v.Text()), &got)
				require.Equal(t, m, got)
				n, ok := record.HeadLen(payload)
				require.True(t, ok)
				require.Equal(t, len(payload)-4, n)
			}
		})
	}
}

// TestAgainBytes pins the format: stores on disk hold these bytes.
func TestAgainBytes(t *testing.T) {
	t.Parallel()
	delayed := record.Message{Topic: 8, StoredAt: 0x11, BornAt: 0x12, Tag: "T", ShardingKey: "s", Again: &record.Again{
		DeliverAt: 0x13, Identity: record.Identity{Epoch: 0x14, Position: 0x18},
	}}
	require.Equal(t, strings.Join([]string{
		"08", "01", "010000000000", "0000", "000000000000", "2300", "110000000000", "54",
		"42", "1200000000000000", // born at
		"44", "1300000000000000", // deliver at
		"49", "14000000", "1800000000000000", // identity
		"53", "0100", "73",
		"ff",
	}, ""), hex.EncodeToString(encode(t, delayed, "\xff")))

	dead := record.Message{Topic: 8, Again: &record.Again{
		Due:    record.Due{At: 0x13, Position: 0x18},
		Origin: &record.Origin{Attempts: 17, Topic: "to", Queue: 3, Offset: 300, LastError: "e"},
	}}
	require.Equal(t, strings.Join([]string{
		"01", "00", "010000000000", "0000", "000000000000", "1d00", "000000000000",
		"57", "1300000000000000", "1800000000000000", // due
		"4f", "0900", "11", "03", "ac02", "02746f", "0165", // origin
	}, ""), hex.EncodeToString(encode(t, dead, "")))
}

func TestAgainTooLong(t *testing.T) {
	t.Parallel()
	for want, again := range map[string]*record.Again{
		"topic of origin of 256 bytes": {Origin: &record.Origin{Topic: strings.Repeat("t", 256)}},
		"last error of 1025 bytes":     {Origin: &record.Origin{LastError: strings.Repeat("e", 1025)}},
	} {
		m := record.Message{Topic: 8, Again: again}
		_, err := m.HeadSize()
		require.ErrorIs(t, err, record.ErrTooLong)
		require.ErrorContains(t, err, want)
	}
}

// TestAgainPanics: what has no encoding must not reach the log.
func TestAgainPanics(t *testing.T) {
	t.Parallel()
	for name, m := range map[string]record.Message{
		"delayed with an offset":  {Offset: 1, Again: &record.Again{DeliverAt: 1}},
		"before time":             {Again: &record.Again{DeliverAt: -1}},
		"identity unaligned":      {Again: &record.Again{Identity: record.Identity{Position: 12}}},
		"identity nowhere":        {Again: &record.Again{Identity: record.Identity{Epoch: 1}}},
		"due at no time":          {Again: &record.Again{Due: record.Due{Position: 8}}},
		"due nowhere":             {Again: &record.Again{Due: record.Due{At: 1}}},
		"due and delayed":         {Again: &record.Again{DeliverAt: 1, Due: record.Due{At: 1, Position: 8}}},
		"origin attempts":         {Again: &record.Again{Origin: &record.Origin{Attempts: -1}}},
		"origin too many":         {Again: &record.Again{Origin: &record.Origin{Attempts: record.MaxAttempts}}},
		"origin queue":            {Again: &record.Again{Origin: &record.Origin{Queue: record.MaxQueues}}},
		"origin queue negative":   {Again: &record.Again{Origin: &record.Origin{Queue: -1}}},
		"origin offset":           {Again: &record.Again{Origin: &record.Origin{Offset: record.MaxOffset}}},
		"origin of negative sign": {Again: &record.Again{Origin: &record.Origin{Offset: -1}}},
	} {
		t.Run(name, func(t *testing.T) {
			m.Topic = 8
			n, err := m.HeadSize()
			require.NoError(t, err)
			require.Panics(t, func() { m.PutHead(make([]byte, n)) })
		})
	}
	t.Run("gained", func(t *testing.T) {
		m := record.Message{Topic: 8, Again: &record.Again{DeliverAt: 1}}
		require.Panics(t, func() { m.PutHead(make([]byte, 24)) })
	})
}

func TestDecodeAgainErrors(t *testing.T) {
	t.Parallel()
	delayed := func() []byte { // meta: D at 24, I at 33, O at 46, then S
		return encode(t, record.Message{Topic: 8, ShardingKey: "s", Again: &record.Again{
			DeliverAt: 1, Identity: record.Identity{Position: 8}, Origin: origin(),
		}}, "")
	}
	delivered := func() []byte { // meta: I at 24, W at 37
		return encode(t, record.Message{Topic: 8, Again: &record.Again{
			Identity: record.Identity{Position: 8}, Due: record.Due{At: 1, Position: 8},
		}}, "")
	}
	bare := func() []byte { return encode(t, record.Message{Topic: 8, Tag: "t"}, "") }
	plain := func() []byte { return encode(t, record.Message{Topic: 8, BornAt: 1}, "") }
	set := func(at int, b ...byte) func([]byte) []byte {
		return func(p []byte) []byte { copy(p[at:], b); return p }
	}
	for name, row := range map[string]struct {
		of      func() []byte
		corrupt func([]byte) []byte
	}{
		"delayed with an offset":     {delayed, set(10, 1)},
		"delayed without a time":     {delivered, set(0, byte(record.KindDelayed))},
		"delayed without meta":       {bare, set(0, byte(record.KindDelayed))},
		"delayed without its field":  {plain, set(0, byte(record.KindDelayed))},
		"message with a time":        {delayed, set(0, byte(record.KindMessage))},
		"time zero":                  {delayed, set(25, 0)},
		"time negative":              {delayed, set(32, 0x80)},
		"identity unaligned":         {delayed, set(38, 9)},
		"identity zero":              {delayed, set(38, 0)},
		"identity out of range":      {delayed, set(45, 0x80)},
		"due at zero":                {delivered, set(38, 0)},
		"due nowhere":                {delivered, set(46, 0)},
		"due twice":                  {delivered, func(p []byte) []byte { p[16] += 17; return append(p, p[37:54]...) }},
		"identity behind due":        {delivered, func(p []byte) []byte { return append(append(p[:24:24], p[37:54]...), p[24:37]...) }},
		"origin cut short":           {delayed, set(47, 5, 0)},
		"origin beyond meta":         {delayed, set(48, 1)},
		"origin longer":              {delayed, func(p []byte) []byte { p[47]++; return p }},
		"origin attempts long form":  {delayed, set(49, 0x80)},
		"origin in delayed, cut":     {delayed, func(p []byte) []byte { return p[:60] }},
		"time behind the identity":   {delayed, func(p []byte) []byte { return append(append(append(p[:24:24], p[33:46]...), p[24:33]...), p[46:]...) }},
		"kind of something else":     {delayed, set(0, byte(record.KindAck))},
		"sharding key before origin": {delayed, func(p []byte) []byte { n := len(p) - 4; return append(append(p[:46:46], p[n:]...), p[46:n]...) }},
	} {
		t.Run(name, func(t *testing.T) {
			payload := row.of()
			payload = row.corrupt(payload)
			require.Error(t, decoderOf(payload)(payload, new(record.View)))
		})
	}
	t.Run("no decoder takes the other kind", func(t *testing.T) {
		require.ErrorIs(t, record.DecodeMessage(delayed(), new(record.View)), record.ErrMalformed)
		require.ErrorIs(t, record.DecodeDelayed(delivered(), new(record.View)), record.ErrMalformed)
	})
	t.Run("origin too long", func(t *testing.T) {
		for _, topic := range []bool{true, false} {
			o := longestAgain().Origin
			long := &o.LastError
			if topic {
				long = &o.Topic
			}
			payload := encode(t, record.Message{Topic: 8, Again: &record.Again{Origin: o}}, "")
			at := strings.Index(string(payload), *long)
			payload = append(payload[:at:at], append([]byte{'x'}, payload[at:]...)...)
			binary.LittleEndian.PutUint16(payload[16:], binary.LittleEndian.Uint16(payload[16:])+1)
			binary.LittleEndian.PutUint16(payload[25:], binary.LittleEndian.Uint16(payload[25:])+1)
			n := binary.PutUvarint(payload[at-2:], uint64(len(*long))+1)
			require.Equal(t, 2, n)
			require.ErrorIs(t, record.DecodeMessage(payload, new(record.View)), record.ErrMalformed)
		}
	})
}

func TestDueCompare(t *testing.T) {
	t.Parallel()
	ascending := []record.Due{{At: 1, Position: 16}, {At: 2, Position: 8}, {At: 2, Position: 16}, {At: 3}}
	for i, d := range ascending {
		for j, e := range ascending {
			require.Equal(t, i < j, d.Compare(e) < 0)
			require.Equal(t, i == j, d.Compare(e) == 0)
			require.Equal(t, i > j, d.Compare(e) > 0)
		}
	}
}

// TestAgainForgets: nothing of the message before shines through.
func TestAgainForgets(t *testing.T) {
	t.Parallel()
	var v record.View
	require.NoError(t, record.DecodeMessage(encode(t, record.Message{Topic: 8, Again: longestAgain()}, ""), &v))
	require.NoError(t, record.DecodeMessage(encode(t, record.Message{Topic: 8, Keys: []string{"k"}}, ""), &v))
	require.Zero(t, v.DeliverAt())
	require.Zero(t, v.Identity())
	require.Zero(t, v.Due())
	require.Nil(t, v.Origin())
}

func TestDelayedAllocations(t *testing.T) {
	m := record.Message{Topic: 8, Tag: "Pay", Again: &record.Again{DeliverAt: 1, Identity: record.Identity{Position: 8}}}
	payload := encode(t, m, "body")
	var v record.View
	require.Zero(t, testing.AllocsPerRun(100, func() {
		if _, err := m.HeadSize(); err != nil {
			t.Fatal(err)
		}
		m.PutHead(payload[:len(payload)-4])
		if err := record.DecodeDelayed(payload, &v); err != nil {
			t.Fatal(err)
		}
		if v.DeliverAt() != 1 || v.Identity().Position != 8 || v.Due() != (record.Due{}) {
			t.Fatal("fields")
		}
	}))
}
