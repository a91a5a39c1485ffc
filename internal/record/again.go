package record

import "encoding/binary"

// A message can be stored more than once: when it waits for its time and when
// that has come, when it is tried again, when it is given up, when what waits is
// carried forward. What its record then says besides stands in these fields of
// its meta (their place among the others is in message.go):
//
//	'D' | deliver at i64             Unix ms, positive
//	'I' | epoch u32 | position i64
//	'W' | at i64 | position i64      Unix ms, positive
//	'O' | len u16 | origin
//
//	origin: | attempts | queue | offset | topic len | topic | error len | error |    varints
const (
	deliverAtField = 1 + 8
	identityField  = 1 + 4 + 8
	dueField       = 1 + 8 + 8
	originField    = 1 + 2 // besides the origin

	// A message is delayed or the delivery of a delayed one, never both.
	maxAgain = identityField + dueField + originField + maxOrigin

	fieldDeliverAt = 'D'
	fieldIdentity  = 'I'
	fieldDue       = 'W'
	fieldOrigin    = 'O'
)

// Limits of an origin.
const (
	// MaxOriginTopic is the longest name of the topic a message comes from.
	MaxOriginTopic = 255

	// MaxLastError is the longest text of an error. Whoever has a longer one
	// cuts it.
	MaxLastError = 1 << 10

	// MaxAttempts is beyond the number of attempts an origin can hold.
	MaxAttempts = 1 << 31

	maxOrigin = 5 + 2 + 7 + 2 + MaxOriginTopic + 2 + MaxLastError
)

// Again is what the record of a message says that is stored more than once. Each
// of its fields may be zero: then it is not said.
type Again struct {
	// DeliverAt is when a delayed message is to become a message, Unix ms. It
	// makes the record a delayed one.
	DeliverAt int64

	Identity Identity
	Due      Due
	Origin   *Origin
}

// Identity is the id, within its store, that a message was first stored under.
type Identity struct {
	Epoch    uint32
	Position Position
}

// Due is a place in the order in which delayed messages become messages: by
// time, and by position where times are the same. In a message it names the
// delayed one that this is the delivery of.
type Due struct {
	At       int64 // Unix ms
	Position Position
}

// Compare is negative if d comes before e, 0 if they are the same.
func (d Due) Compare(e Due) int {
	switch {
	case d.At < e.At, d.At == e.At && d.Position < e.Position:
		return -1
	case d == e:
		return 0
	}
	return 1
}

// Origin says where a retry or a dead letter comes from.
type Origin struct {
	Attempts  int // deliveries so far
	Topic     string
	Queue     QueueID
	Offset    Offset
	LastError string // at most MaxLastError bytes
}

func (o *Origin) size() int {
	return uvarintLen(uint64(o.Attempts)) + uvarintLen(uint64(o.Queue)) + uvarintLen(uint64(o.Offset)) +
		textLen(o.Topic) + textLen(o.LastError)
}

func (o *Origin) append(out []byte) []byte {
	out = binary.AppendUvarint(out, uint64(o.Attempts))
	out = binary.AppendUvarint(out, uint64(o.Queue))
	out = binary.AppendUvarint(out, uint64(o.Offset))
	out = appendText(out, o.Topic)
	return appendText(out, o.LastError)
}

// cutOrigin reads an origin in place: its texts are returned beside it.
func cutOrigin(b []byte) (o Origin, topic, lastError []byte, flaw string) {
	r := reader{kind: KindMessage, rest: b}
	o.Attempts = int(r.uvarint(MaxAttempts))
	o.Queue = r.queue()
	o.Offset = r.offset()
	topic, lastError = r.bytes(), r.bytes()
	if r.end("") != nil || len(topic) > MaxOriginTopic || len(lastError) > MaxLastError {
		return o, nil, nil, "origin"
	}
	return o, topic, lastError, ""
}

// size returns how many bytes the fields take.
func (a *Again) size() (n int, err error) {
	if a.DeliverAt != 0 {
		n += deliverAtField
	}
	if a.Identity != (Identity{}) {
		n += identityField
	}
	if a.Due != (Due{}) {
		n += dueField
	}
	if o := a.Origin; o != nil {
		if len(o.Topic) > MaxOriginTopic {
			return 0, tooLong("topic of origin", len(o.Topic), MaxOriginTopic)
		}
		if len(o.LastError) > MaxLastError {
			return 0, tooLong("last error", len(o.LastError), MaxLastError)
		}
		n += originField + o.size()
	}
	return n, nil
}

// append writes the fields. It panics if there is no such record: nothing of it
// may reach the log.
func (a *Again) append(out []byte) []byte {
	if !a.canBe() {
		panic("record: encode message: a time, a place or an origin is out of range")
	}
	if a.DeliverAt != 0 {
		out = append(out, fieldDeliverAt)
		out = binary.LittleEndian.AppendUint64(out, uint64(a.DeliverAt))
	}
	if a.Identity != (Identity{}) {
		out = append(out, fieldIdentity)
		out = binary.LittleEndian.AppendUint32(out, a.Identity.Epoch)
		out = binary.LittleEndian.AppendUint64(out, uint64(a.Identity.Position))
	}
	if a.Due != (Due{}) {
		out = append(out, fieldDue)
		out = binary.LittleEndian.AppendUint64(out, uint64(a.Due.At))
		out = binary.LittleEndian.AppendUint64(out, uint64(a.Due.Position))
	}
	if a.Origin != nil {
		out = append(out, fieldOrigin)
		out = binary.LittleEndian.AppendUint16(out, uint16(a.Origin.size()))
		out = a.Origin.append(out)
	}
	return out
}

func (a *Again) canBe() bool {
	o := a.Origin
	return a.DeliverAt >= 0 &&
		(a.Identity == Identity{} || canName(a.Identity.Position)) &&
		(a.Due == Due{} || a.DeliverAt == 0 && a.Due.canBe()) &&
		(o == nil || o.Attempts >= 0 && o.Attempts < MaxAttempts && o.Queue >= 0 && o.Queue < MaxQueues && canOffset(o.Offset))
}

func (d Due) canBe() bool { return d.At > 0 && canName(d.Position) }

// againFlaw says what keeps a field from standing in a record of that kind.
func againFlaw(kind Kind, f Field) string {
	switch f.Type {
	case FieldDeliverAt:
		if kind != KindDelayed || f.deliverAt() <= 0 {
			return "time of delivery"
		}
	case FieldIdentity:
		if !canName(f.identity().Position) {
			return "identity is no record"
		}
	case FieldDue:
		if kind != KindMessage || !f.due().canBe() {
			return "delivery of no delayed message"
		}
	case FieldOrigin:
		_, _, _, flaw := cutOrigin(f.Value)
		return flaw
	}
	return ""
}

func (f Field) deliverAt() int64 { return int64(binary.LittleEndian.Uint64(f.Value)) }

func (f Field) identity() Identity {
	return Identity{
		Epoch:    binary.LittleEndian.Uint32(f.Value),
		Position: Position(binary.LittleEndian.Uint64(f.Value[4:])),
	}
}

func (f Field) due() Due {
	return Due{
		At:       int64(binary.LittleEndian.Uint64(f.Value)),
		Position: Position(binary.LittleEndian.Uint64(f.Value[8:])),
	}
}

func (f Field) origin() *Origin {
	o, topic, lastError, _ := cutOrigin(f.Value)
	o.Topic, o.LastError = string(topic), string(lastError)
	return &o
}

// take puts the field where it belongs; nothing of it points into the payload.
func (a *Again) take(f Field) {
	switch f.Type {
	case FieldDeliverAt:
		a.DeliverAt = f.deliverAt()
	case FieldIdentity:
		a.Identity = f.identity()
	case FieldDue:
		a.Due = f.due()
	case FieldOrigin:
		a.Origin = f.origin()
	}
}

// field finds one of the fields above. They stand near the front, and a message
// without any says so with its first one.
func (v *View) field(t FieldType) (Field, bool) {
	for fs := v.Fields(); fs.Next(); {
		if fs.Field.Type == t {
			return fs.Field, true
		}
		if ranks[fs.Field.Type] > ranks[t] {
			break
		}
	}
	return Field{}, false
}

// Again reports whether the message has any of these fields, mostly without
// looking at more than the first one.
func (v *View) Again() bool {
	for fs := v.Fields(); fs.Next(); {
		switch fs.Field.Type {
		case FieldDeliverAt, FieldIdentity, FieldDue, FieldOrigin:
			return true
		case FieldBornAt:
		default:
			return false
		}
	}
	return false
}

// DeliverAt returns when a delayed message is due, Unix ms; 0 for every other.
func (v *View) DeliverAt() int64 {
	if f, ok := v.field(FieldDeliverAt); ok {
		return f.deliverAt()
	}
	return 0
}

// Identity returns what the message was first stored under; zero if that is
// this record.
func (v *View) Identity() Identity {
	if f, ok := v.field(FieldIdentity); ok {
		return f.identity()
	}
	return Identity{}
}

// Due names the delayed message that this is the delivery of; zero if of none.
func (v *View) Due() Due {
	if f, ok := v.field(FieldDue); ok {
		return f.due()
	}
	return Due{}
}

// Origin returns where a retry or a dead letter comes from, nil for any other
// message. It is a copy.
func (v *View) Origin() *Origin {
	if f, ok := v.field(FieldOrigin); ok {
		return f.origin()
	}
	return nil
}
