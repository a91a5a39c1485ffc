package record

import (
	"bytes"
	"encoding/binary"
)

// View is a message read in place. Its slices point into the payload it was
// decoded from and are worth as much as that: who keeps anything copies it.
type View struct {
	Topic    TopicID
	Queue    QueueID
	Offset   Offset
	StoredAt int64 // Unix ms

	Tag         []byte // nil or empty: no tag
	ShardingKey []byte // nil: none
	DedupKey    []byte // nil: none
	Body        []byte

	// Set by DecodeMessage, which has walked all fields: walking them again
	// cannot fail, and counts let a reader allocate once.
	bornAt     int64  // 0: not said
	text       []byte // tag and meta, which stand side by side
	keys       int
	properties int
}

// messageHeadLen is HeadLen of a message, delayed or not. The head is bounded by the payload
// only; DecodeMessage checks what is in it.
func messageHeadLen(payload []byte) (int, bool) {
	if len(payload) < fixedHead {
		return 0, false
	}
	n := fixedHead + int(payload[1]) + int(binary.LittleEndian.Uint16(payload[16:]))
	return n, n <= len(payload)
}

// DecodeMessage reads the message in payload into v. It checks everything, so
// nothing that is asked of v later can fail. When it fails, v is not to be used.
func DecodeMessage(payload []byte, v *View) error { return v.decode(KindMessage, payload) }

// DecodeDelayed is DecodeMessage for a delayed message.
func DecodeDelayed(payload []byte, v *View) error {
	if err := v.decode(KindDelayed, payload); err != nil {
		return err
	}
	if v.Offset != 0 || v.DeliverAt() == 0 {
		return malformed(KindDelayed, "an offset, or no time to deliver it at")
	}
	return nil
}

func (v *View) decode(kind Kind, payload []byte) error {
	if len(payload) < fixedHead {
		return malformed(kind, "cut short")
	}
	// Three loads and everything from them: a byte looked at by itself makes the
	// compiler load that word byte by byte.
	word0 := binary.LittleEndian.Uint64(payload[0:8])
	word1 := binary.LittleEndian.Uint64(payload[8:16])
	word2 := binary.LittleEndian.Uint64(payload[16:24])
	tag, queue := int(word0>>8&0xff), word1&0xffff
	head := fixedHead + tag + int(word2&0xffff)
	if Kind(word0&0xff) != kind || head > len(payload) {
		return malformed(kind, "another kind, or cut short")
	}
	if tag > MaxTag || queue >= MaxQueues || word0>>16 == 0 {
		return malformed(kind, "tag, queue or topic out of range")
	}
	v.Topic = TopicID(word0 >> 16 << alignShift)
	v.Queue = QueueID(queue)
	v.Offset = Offset(word1 >> 16)
	v.StoredAt = int64(word2 >> 16)
	v.text = payload[fixedHead:head:head]
	v.Tag = v.text[:tag:tag]
	v.Body = payload[head:]
	v.ShardingKey, v.DedupKey, v.bornAt, v.keys, v.properties = nil, nil, 0, 0, 0
	if len(v.text) == tag {
		return nil
	}
	return v.checkMeta(kind)
}

// meta is the fields, behind the tag.
func (v *View) meta() []byte { return v.text[len(v.Tag):] }

// checkMeta walks the fields once, demands the order an encoder writes them in,
// and keeps what is asked for often.
func (v *View) checkMeta(kind Kind) error {
	var (
		last  byte // type of the field before
		name  []byte
		names int
	)
	for rest := v.meta(); len(rest) > 0; {
		// Slices are cut with their capacity: nobody can append into a neighbour.
		f, n, err := cutField(rest)
		if err != nil {
			return err
		}
		rest = rest[n:]
		if !follows(last, f.Type) {
			return malformed(kind, "field out of order")
		}
		switch f.Type {
		case FieldBornAt:
			v.bornAt = int64(binary.LittleEndian.Uint64(f.Value))
			if v.bornAt == 0 {
				return malformed(kind, "time of birth without a time")
			}
		case FieldDeliverAt, FieldIdentity, FieldDue, FieldOrigin:
			if flaw := againFlaw(kind, f); flaw != "" {
				return malformed(kind, flaw)
			}
		case FieldShardingKey:
			if len(f.Value) == 0 || len(f.Value) > MaxShardingKey {
				return malformed(kind, "length of the sharding key")
			}
			v.ShardingKey = f.Value
		case FieldDedupKey:
			if len(f.Value) == 0 || len(f.Value) > MaxDedupKey {
				return malformed(kind, "length of the deduplication key")
			}
			v.DedupKey = f.Value
		case FieldKey:
			v.keys++
			names += n
		case FieldProperty:
			if v.properties > 0 && bytes.Compare(name, f.Name) >= 0 {
				return malformed(kind, "properties out of order")
			}
			name = f.Name
			v.properties++
			names += n
		}
		last = byte(f.Type)
	}
	if names > MaxNames {
		return malformed(kind, "keys and properties too long")
	}
	return nil
}

// follows reports whether a field may stand behind one of type last (0: it is
// the first).
func follows(last byte, next FieldType) bool {
	switch next {
	case FieldKey, FieldProperty:
		return ranks[last] <= ranks[next]
	default:
		return ranks[last] < ranks[next]
	}
}

// ranks are the places of the types of fields among each other.
var ranks = [256]uint8{
	fieldBornAt:      1,
	fieldDeliverAt:   2,
	fieldIdentity:    3,
	fieldDue:         4,
	fieldOrigin:      5,
	fieldShardingKey: 6,
	fieldDedupKey:    7,
	fieldKey:         8,
	fieldProperty:    9,
}

// FieldType is the first byte of a field of a message's meta.
type FieldType byte

// The types of fields. The numbers are on disk and never change.
const (
	FieldBornAt      FieldType = fieldBornAt
	FieldDeliverAt   FieldType = fieldDeliverAt
	FieldIdentity    FieldType = fieldIdentity
	FieldDue         FieldType = fieldDue
	FieldOrigin      FieldType = fieldOrigin
	FieldShardingKey FieldType = fieldShardingKey
	FieldDedupKey    FieldType = fieldDedupKey
	FieldKey         FieldType = fieldKey
	FieldProperty    FieldType = fieldProperty
)

// Field is one entry of a message's meta, in place. Name is a property's; the
// value of a field without lengths is its bytes.
type Field struct {
	Type  FieldType
	Name  []byte
	Value []byte
}

// cutField reads the field at the start of b and says how many bytes it takes.
func cutField(b []byte) (f Field, n int, err error) {
	f.Type = FieldType(b[0])
	// Lengths of name and value, and where the first of them begins.
	name, value, at := 0, 0, keyField
	switch f.Type {
	case FieldBornAt, FieldDeliverAt:
		value, at = 8, 1
	case FieldIdentity:
		value, at = identityField-1, 1
	case FieldDue:
		value, at = dueField-1, 1
	case FieldShardingKey, FieldDedupKey, FieldKey, FieldOrigin:
		if len(b) < at {
			return f, 0, malformed(KindMessage, "field cut short")
		}
		value = int(binary.LittleEndian.Uint16(b[1:]))
	case FieldProperty:
		at = propertyField
		if len(b) < at {
			return f, 0, malformed(KindMessage, "field cut short")
		}
		name, value = int(binary.LittleEndian.Uint16(b[1:])), int(binary.LittleEndian.Uint16(b[3:]))
	default:
		return f, 0, unknown(KindMessage, "unknown field")
	}
	n = at + name + value
	if n > len(b) {
		return f, 0, malformed(KindMessage, "field cut short")
	}
	f.Name, f.Value = b[at:at+name:at+name], b[at+name:n:n]
	return f, n, nil
}

// Fields is a cursor over the fields of a message, in the order they are
// stored. It is a value without a closure, so walking allocates nothing:
//
//	for fs := v.Fields(); fs.Next(); {
//		use(fs.Field)
//	}
type Fields struct {
	Field Field // the current one, after Next returned true
	rest  []byte
}

// Fields returns a cursor before the first field.
func (v *View) Fields() Fields { return Fields{rest: v.meta()} }

// Next moves to the next field and reports whether there is one.
func (fs *Fields) Next() bool {
	if len(fs.rest) == 0 {
		return false
	}
	f, n, err := cutField(fs.rest)
	if err != nil {
		return false // not possible: DecodeMessage was here before
	}
	fs.Field, fs.rest = f, fs.rest[n:]
	return true
}

// BornAt returns when the message was made, Unix ms: StoredAt if its sender did
// not say.
func (v *View) BornAt() int64 {
	if v.bornAt == 0 {
		return v.StoredAt
	}
	return v.bornAt
}

// Keys returns how many keys the message has; Fields gives them.
func (v *View) Keys() int { return v.keys }

// Properties returns how many properties the message has; Fields gives them.
func (v *View) Properties() int { return v.properties }

// Property returns the value of the named property, in place.
func (v *View) Property(name string) ([]byte, bool) {
	if v.properties == 0 {
		return nil, false
	}
	for fs := v.Fields(); fs.Next(); {
		if fs.Field.Type == FieldProperty && string(fs.Field.Name) == name {
			return fs.Field.Value, true
		}
	}
	return nil, false
}

// Text returns the bytes that all names of the message are cut from, tag first:
// a reader copies them once, as a string, and has Unpack cut that.
func (v *View) Text() []byte { return v.text }

// Unpack fills m. The text is a string of the caller with the bytes of Text;
// all strings of m are cut from it, so besides it only the slice of keys and
// the map of properties are allocated, and only if there are any.
func (v *View) Unpack(text string, m *Message) {
	*m = Message{
		Topic: v.Topic, Queue: v.Queue, Offset: v.Offset, StoredAt: v.StoredAt,
		BornAt: v.bornAt,
		Tag:    text[:len(v.Tag)],
	}
	if len(v.meta()) == 0 {
		return
	}
	if v.keys > 0 {
		m.Keys = make([]string, 0, v.keys)
	}
	if v.properties > 0 {
		m.Properties = make(map[string]string, v.properties)
	}
	// The cursor walks the bytes; the same places are cut from the text. at is
	// where the current field starts in it, and what the cursor has left tells
	// where it ends.
	at := len(v.Tag)
	for fs := v.Fields(); fs.Next(); {
		end := len(text) - len(fs.rest)
		value := text[end-len(fs.Field.Value) : end]
		switch fs.Field.Type {
		case FieldBornAt: // no text, and known already
		case FieldDeliverAt, FieldIdentity, FieldDue, FieldOrigin:
			if m.Again == nil {
				m.Again = new(Again)
			}
			m.Again.take(fs.Field)
		case FieldShardingKey:
			m.ShardingKey = value
		case FieldDedupKey:
			m.DedupKey = value
		case FieldKey:
			m.Keys = append(m.Keys, value)
		case FieldProperty:
			name := text[at+propertyField : at+propertyField+len(fs.Field.Name)]
			m.Properties[name] = value
		}
		at = end
	}
}
