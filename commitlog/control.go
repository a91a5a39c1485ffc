package commitlog

import "encoding/binary"

// Control frames are the log's own. Their payload is three words, all of it
// head:
//
//	 0          8           16         24
//	+----------+-----------+----------+
//	| kind u64 | value u64 | time u64 |
//	+----------+-----------+----------+
//
//	END    value: base of the segment that follows; time: last stored, Unix ms
//	EPOCH  value: the epoch from here on; time: when it was raised, Unix ms
//	START  value: base of the segment that the log now begins with; time: as above
type controlKind uint64

const (
	controlEnd controlKind = 1 + iota
	controlEpoch
	controlStart
)

const (
	controlPayload = 24

	// endSize is what an END frame takes. A frame is only placed where one still
	// fits behind it.
	endSize = headerSize + controlPayload
)

// control is a decoded control frame.
type control struct {
	kind  controlKind
	value uint64
	time  int64 // Unix ms
}

// put encodes c into the payload b.
func (c control) put(b []byte) {
	binary.LittleEndian.PutUint64(b, uint64(c.kind))
	binary.LittleEndian.PutUint64(b[8:], c.value)
	binary.LittleEndian.PutUint64(b[16:], uint64(c.time))
}

// parseControl decodes the payload of a verified control frame.
func parseControl(payload []byte) (control, error) {
	if len(payload) != controlPayload {
		return control{}, errControl
	}
	c := control{
		kind:  controlKind(binary.LittleEndian.Uint64(payload)),
		value: binary.LittleEndian.Uint64(payload[8:]),
		time:  int64(binary.LittleEndian.Uint64(payload[16:])),
	}
	// Positions are signed and leave room behind them; a value beyond was never
	// written.
	if c.kind < controlEnd || c.kind > controlStart || c.value > uint64(maxPosition) {
		return control{}, errControl
	}
	return c, nil
}
