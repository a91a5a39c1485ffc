package record_test

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/internal/record"
)

// full has every field, and more properties than are sorted on the stack.
func full() record.Message {
	m := record.Message{
		Topic: record.TopicID(record.MaxPosition - 8), Queue: record.MaxQueues - 1,
		Offset: record.MaxOffset - 1, StoredAt: 1<<48 - 1, BornAt: -1,
		Tag:         strings.Repeat("t", record.MaxTag),
		ShardingKey: "user-\x00\xff",
		DedupKey:    "payment \x00\xff",
		Keys:        []string{"order-42", "", "a b\x01c"},
		Properties:  map[string]string{"": "", "empty": "", "\x01": "\x02"},
	}
	for i := range 20 {
		m.Properties[fmt.Sprintf("p%02d", i)] = strings.Repeat("v", i)
	}
	return m
}

// encode returns head and body as they stand in the log.
func encode(t testing.TB, m record.Message, body string) []byte {
	t.Helper()
	n, err := m.HeadSize()
	require.NoError(t, err)
	payload := make([]byte, n, n+len(body))
	m.PutHead(payload)
	return append(payload, body...)
}

func decode(t testing.TB, payload []byte) (record.View, record.Message) {
	t.Helper()
	var v record.View
	require.NoError(t, record.DecodeMessage(payload, &v))
	var m record.Message
	v.Unpack(string(v.Text()), &m)
	return v, m
}

func TestMessageRoundTrip(t *testing.T) {
	t.Parallel()
	for name, m := range map[string]record.Message{
		"bare":         {Topic: 8},
		"tag":          {Topic: 64, Queue: 3, Offset: 7, StoredAt: 1_700_000_000_000, Tag: "Pay"},
		"born":         {Topic: 64, BornAt: 1},
		"sharding key": {Topic: 64, ShardingKey: strings.Repeat("s", record.MaxShardingKey)},
		"dedup key":    {Topic: 64, DedupKey: strings.Repeat("d", record.MaxDedupKey)},
		"empty key":    {Topic: 64, Keys: []string{""}},
		"one property": {Topic: 64, Properties: map[string]string{"region": "eu"}},
		"empty names":  {Topic: 64, Properties: map[string]string{"": ""}},
		"full":         full(),
	} {
		for _, body := range []string{"", "body"} {
			t.Run(name+"/"+body, func(t *testing.T) {
				payload := encode(t, m, body)
				v, got := decode(t, payload)
				require.Equal(t, m, got)
				require.Equal(t, body, string(v.Body))
				require.Equal(t, len(m.Keys), v.Keys())
				require.Equal(t, len(m.Properties), v.Properties())
				require.Equal(t, m.ShardingKey, string(v.ShardingKey))
				require.Equal(t, m.DedupKey, string(v.DedupKey))
				n, ok := record.HeadLen(payload)
				require.True(t, ok)
				require.Equal(t, len(payload)-len(body), n)
				for k, want := range m.Properties {
					value, ok := v.Property(k)
					require.True(t, ok, k)
					require.Equal(t, want, string(value))
				}
				_, ok = v.Property("no such property")
				require.False(t, ok)
			})
		}
	}
}

// TestMessageBytes pins the format: stores on disk hold these bytes.
func TestMessageBytes(t *testing.T) {
	t.Parallel()
	m := record.Message{
		Topic: 0x08, Queue: 0x0102, Offset: 0x030405060708, StoredAt: 0x11, BornAt: 0x12,
		Tag: "T", ShardingKey: "s", DedupKey: "d", Keys: []string{"k"}, Properties: map[string]string{"n": "vv", "a": ""},
	}
	require.Equal(t, strings.Join([]string{
		"01", "01", "010000000000", // kind, tag length, topic/8
		"0201", "080706050403", // queue, offset
		"2300", "110000000000", // meta length, stored at
		"54",                     // T
		"42", "1200000000000000", // born at
		"53", "0100", "73", // sharding key
		"55", "0100", "64", // deduplication key
		"4b", "0100", "6b", // key
		"50", "0100", "0000", "61", // a=
		"50", "0100", "0200", "6e", "7676", // n=vv
		"ff", // body
	}, ""), hex.EncodeToString(encode(t, m, "\xff")))
}

func TestMessageBornAt(t *testing.T) {
	t.Parallel()
	v, _ := decode(t, encode(t, record.Message{Topic: 8, StoredAt: 5}, ""))
	require.EqualValues(t, 5, v.BornAt(), "a sender that says nothing: when it was stored")
	v, _ = decode(t, encode(t, record.Message{Topic: 8, StoredAt: 5, BornAt: 3}, ""))
	require.EqualValues(t, 3, v.BornAt())
}

// TestMessageClockFarOff: a clock before 1970 or beyond 48 bits stores the
// nearest time there is, and no other field is touched.
func TestMessageClockFarOff(t *testing.T) {
	t.Parallel()
	v, m := decode(t, encode(t, record.Message{Topic: 8, StoredAt: -1, Tag: "t"}, ""))
	require.Zero(t, v.StoredAt)
	require.Equal(t, "t", m.Tag)
	v, _ = decode(t, encode(t, record.Message{Topic: 8, StoredAt: 1 << 60}, ""))
	require.EqualValues(t, 1<<48-1, v.StoredAt)
}

func TestMessageFieldsInOrder(t *testing.T) {
	t.Parallel()
	v, _ := decode(t, encode(t, record.Message{
		Topic: 8, BornAt: 1, ShardingKey: "s", Keys: []string{"k2", "k1"},
		Properties: map[string]string{"b": "2", "a": "1"},
	}, ""))
	var got []string
	for fs := v.Fields(); fs.Next(); {
		if fs.Field.Type == record.FieldBornAt {
			continue
		}
		got = append(got, fmt.Sprintf("%c%s=%s", fs.Field.Type, fs.Field.Name, fs.Field.Value))
	}
	require.Equal(t, []string{"S=s", "K=k2", "K=k1", "Pa=1", "Pb=2"}, got)
}

func TestMessageLimits(t *testing.T) {
	t.Parallel()
	long := func(n int) string { return strings.Repeat("x", n) }
	for name, row := range map[string]struct {
		m    record.Message
		want string // empty: fits
	}{
		"tag fits":          {record.Message{Tag: long(record.MaxTag)}, ""},
		"tag":               {record.Message{Tag: long(record.MaxTag + 1)}, "tag of 128 bytes"},
		"sharding key fits": {record.Message{ShardingKey: long(record.MaxShardingKey)}, ""},
		"sharding key":      {record.Message{ShardingKey: long(record.MaxShardingKey + 1)}, "sharding key of 1025 bytes"},
		"dedup key fits":    {record.Message{DedupKey: long(record.MaxDedupKey)}, ""},
		"dedup key":         {record.Message{DedupKey: long(record.MaxDedupKey + 1)}, "deduplication key of 1025 bytes"},
		"key fits":          {record.Message{Keys: []string{long(record.MaxNames - 3)}}, ""},
		"key":               {record.Message{Keys: []string{long(record.MaxNames - 2)}}, "keys and properties of 32768 bytes"},
		"property fits":     {record.Message{Properties: map[string]string{"n": long(record.MaxNames - 6)}}, ""},
		"property":          {record.Message{Properties: map[string]string{"n": long(record.MaxNames - 5)}}, "keys and properties of 32768 bytes"},
		"many empty keys":   {record.Message{Keys: make([]string, 11_000)}, "keys and properties of 33000 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			row.m.Topic = 8
			if row.want == "" {
				_, m := decode(t, encode(t, row.m, "body"))
				require.Equal(t, row.m, m)
				return
			}
			_, err := row.m.HeadSize()
			require.ErrorIs(t, err, record.ErrTooLong)
			require.ErrorContains(t, err, row.want)
		})
	}
}

func TestMessageLongestHead(t *testing.T) {
	t.Parallel()
	m := record.Message{
		Topic: 8, BornAt: 1, Tag: strings.Repeat("t", record.MaxTag), Again: longestAgain(),
		ShardingKey: strings.Repeat("s", record.MaxShardingKey),
		DedupKey:    strings.Repeat("d", record.MaxDedupKey),
		Keys:        []string{strings.Repeat("k", record.MaxNames-3)},
	}
	n, err := m.HeadSize()
	require.NoError(t, err)
	require.Equal(t, record.MaxHead, n)
}

// TestMessagePutHeadPanics: what has no encoding must not reach the log, and
// what does not fit must not reach the bytes behind.
func TestMessagePutHeadPanics(t *testing.T) {
	t.Parallel()
	for name, m := range map[string]record.Message{
		"no topic":          {},
		"topic unaligned":   {Topic: 12},
		"topic negative":    {Topic: -8},
		"topic too large":   {Topic: record.TopicID(record.MaxPosition)},
		"queue negative":    {Topic: 8, Queue: -1},
		"queue too large":   {Topic: 8, Queue: record.MaxQueues},
		"offset negative":   {Topic: 8, Offset: -1},
		"offset too large":  {Topic: 8, Offset: record.MaxOffset},
		"tag longer":        {Topic: 8, Tag: "t"},
		"gained a key":      {Topic: 8, Keys: []string{""}},
		"gained a property": {Topic: 8, Properties: map[string]string{"": ""}},
		"born after all":    {Topic: 8, BornAt: 1},
	} {
		t.Run(name, func(t *testing.T) {
			room := make([]byte, 64) // room for more, which is not ours
			require.Panics(t, func() { m.PutHead(room[:24]) })
			require.Equal(t, make([]byte, 40), room[24:])
		})
	}
	t.Run("lost a property", func(t *testing.T) {
		m := record.Message{Topic: 8, Properties: map[string]string{"a": "1"}}
		n, err := m.HeadSize()
		require.NoError(t, err)
		delete(m.Properties, "a")
		require.Panics(t, func() { m.PutHead(make([]byte, n)) })
	})
}

func TestDecodeMessageErrors(t *testing.T) {
	t.Parallel()
	// Meta of this message starts behind the tag, at 25, with the time of birth.
	sample := func() record.Message {
		return record.Message{
			Topic: 8, Tag: "t", BornAt: 1, ShardingKey: "s", Keys: []string{"k"},
			Properties: map[string]string{"a": "1", "b": "2"},
		}
	}
	const born, sharding, key, propA, propB = 25, 34, 38, 42, 49
	set := func(at int, b ...byte) func([]byte) []byte {
		return func(p []byte) []byte { copy(p[at:], b); return p }
	}
	cut := func(from, to int) func([]byte) []byte { // and the length of meta with it
		return func(p []byte) []byte {
			p[16] -= byte(to - from)
			return append(p[:from:from], p[to:]...)
		}
	}
	for name, row := range map[string]struct {
		corrupt func([]byte) []byte
		want    error
	}{
		"empty":                   {func([]byte) []byte { return nil }, record.ErrMalformed},
		"another kind":            {set(0, byte(record.KindAck)), record.ErrMalformed},
		"no topic":                {set(2, 0), record.ErrMalformed},
		"words cut short":         {func(p []byte) []byte { return p[:23] }, record.ErrMalformed},
		"tag beyond the payload":  {set(1, 127), record.ErrMalformed},
		"tag too long":            {func(p []byte) []byte { p[1] = 128; return append(p, make([]byte, 200)...) }, record.ErrMalformed},
		"queue out of range":      {set(9, 4), record.ErrMalformed},
		"meta beyond the payload": {set(17, 1), record.ErrMalformed},
		"field cut short":         {set(16, 1), record.ErrMalformed},
		"lengths cut short":       {set(16, propA-born+4), record.ErrMalformed},
		"key's length cut short":  {set(16, key-born+2), record.ErrMalformed},
		"key beyond meta":         {set(key+1, 200), record.ErrMalformed},
		"name beyond meta":        {set(propB+1, 200), record.ErrMalformed},
		"unknown field":           {set(propB, 'X'), record.ErrUnknown},
		"zeros":                   {set(born, 0), record.ErrUnknown},
		"born at zero":            {set(born+1, 0), record.ErrMalformed},
		"empty sharding key":      {func(p []byte) []byte { p[sharding+1] = 0; return cut(sharding+3, key)(p) }, record.ErrMalformed},
		"sharding key behind key": {set(sharding, 'K', 1, 0, 'k', 'S', 1, 0, 's'), record.ErrMalformed},
		"empty dedup key":         {func(p []byte) []byte { p[key] = 'U'; p[key+1] = 0; return cut(key+3, propA)(p) }, record.ErrMalformed},
		"dedup key first":         {set(sharding, 'U', 1, 0, 'd', 'S', 1, 0, 's'), record.ErrMalformed},
		"dedup key twice":         {set(sharding, 'U', 1, 0, 'd', 'U', 1, 0, 'd'), record.ErrMalformed},
		"dedup key behind key":    {set(sharding, 'K', 1, 0, 'k', 'U', 1, 0, 'd'), record.ErrMalformed},
		"sharding key twice":      {set(key, 'S'), record.ErrMalformed},
		"key behind property":     {func(p []byte) []byte { return append(p[:propA:propA], 'P', 0, 0, 0, 0, 'K', 6, 0, 0, 0, 0, 0, 0, 0) }, record.ErrMalformed},
		"properties swapped":      {func(p []byte) []byte { p[propA+5], p[propB+5] = 'b', 'a'; return p }, record.ErrMalformed},
		"property twice":          {set(propB+5, 'a'), record.ErrMalformed},
		"born at behind the first": {func(p []byte) []byte {
			return append(append(p[:born:born], p[sharding:key]...), append([]byte("B12345678"), p[key:]...)...)
		}, record.ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			payload := row.corrupt(encode(t, sample(), ""))
			err := record.DecodeMessage(payload, new(record.View))
			require.ErrorIs(t, err, row.want)
		})
	}
	t.Run("keys and properties too long", func(t *testing.T) {
		long := strings.Repeat("x", record.MaxNames-3)
		payload := encode(t, record.Message{Topic: 8, Keys: []string{long}}, "xyz")
		// One more byte of meta, and of the key: the first of the body.
		binary.LittleEndian.PutUint16(payload[16:], record.MaxNames+1)
		binary.LittleEndian.PutUint16(payload[25:], record.MaxNames+1-3)
		require.ErrorIs(t, record.DecodeMessage(payload, new(record.View)), record.ErrMalformed)
	})
	t.Run("dedup key too long", func(t *testing.T) {
		payload := encode(t, record.Message{Topic: 8, DedupKey: strings.Repeat("d", record.MaxDedupKey)}, "d")
		payload[16]++
		payload[25]++
		require.ErrorIs(t, record.DecodeMessage(payload, new(record.View)), record.ErrMalformed)
	})
	t.Run("sharding key too long", func(t *testing.T) {
		payload := encode(t, record.Message{Topic: 8, ShardingKey: strings.Repeat("s", record.MaxShardingKey)}, "s")
		payload[16]++
		payload[25]++
		require.ErrorIs(t, record.DecodeMessage(payload, new(record.View)), record.ErrMalformed)
	})
}

// TestDecodeMessageForgets: a view is used again and again; nothing of the
// message before may shine through.
func TestDecodeMessageForgets(t *testing.T) {
	t.Parallel()
	var v record.View
	require.NoError(t, record.DecodeMessage(encode(t, full(), "body"), &v))
	require.NoError(t, record.DecodeMessage(encode(t, record.Message{Topic: 8, StoredAt: 9}, ""), &v))
	require.Empty(t, v.Tag)
	require.Nil(t, v.ShardingKey)
	require.Nil(t, v.DedupKey)
	require.Empty(t, v.Body)
	require.EqualValues(t, 9, v.BornAt())
	require.Zero(t, v.Keys())
	require.Zero(t, v.Properties())
	fs := v.Fields()
	require.False(t, fs.Next())
}

func TestMessageAllocations(t *testing.T) {
	for name, row := range map[string]struct {
		m      record.Message
		unpack float64 // the slice of keys and the map of properties
	}{
		"tag":          {record.Message{Topic: 8, Tag: "Pay"}, 0},
		"one property": {record.Message{Topic: 8, Tag: "Pay", Properties: map[string]string{"region": "eu"}}, -1},
		"some of all": {record.Message{Topic: 8, BornAt: 1, ShardingKey: "s", Keys: []string{"k"},
			Properties: map[string]string{"a": "1", "b": "2", "c": "3"}}, -1},
	} {
		t.Run(name, func(t *testing.T) {
			payload := encode(t, row.m, "body")
			head, _ := record.HeadLen(payload)
			require.Zero(t, testing.AllocsPerRun(100, func() {
				if n, err := row.m.HeadSize(); err != nil || n != head {
					t.Fatal(n, err)
				}
				row.m.PutHead(payload[:head])
			}))
			var v record.View
			require.Zero(t, testing.AllocsPerRun(100, func() {
				if err := record.DecodeMessage(payload, &v); err != nil {
					t.Fatal(err)
				}
				for fs := v.Fields(); fs.Next(); {
					_ = fs.Field
				}
				_, _ = v.Property("region")
			}))
			if row.unpack == 0 {
				text, m := string(v.Text()), record.Message{}
				require.Zero(t, testing.AllocsPerRun(100, func() { v.Unpack(text, &m) }))
			}
		})
	}
}
