package pocketmq

import (
	"bytes"
	"context"
	"strings"

	"github.com/cloudevents/sdk-go/v2/binding"
	"github.com/cloudevents/sdk-go/v2/binding/format"
	"github.com/cloudevents/sdk-go/v2/binding/spec"

	"github.com/pocketmq/mq"
)

// Property names of the draft. It writes the second one with a capital T in one
// place, so that is read as well.
const (
	prefix          = "CE_"
	contentType     = prefix + "contenttype"
	contentTypeAlso = prefix + "contentType"
	specVersion     = prefix + "specversion"

	dataContentType = "datacontenttype" // the attribute that contentType holds
)

// propertyOf is the property that holds an attribute or extension.
func propertyOf(name string) string {
	if name == dataContentType {
		return contentType
	}
	return prefix + name
}

// nameOf is the attribute or extension that a property holds; empty for one that
// has nothing to do with CloudEvents.
func nameOf(property string) string {
	switch property {
	case contentType, contentTypeAlso:
		return dataContentType
	case specVersion:
		return ""
	}
	name, ok := strings.CutPrefix(property, prefix)
	if !ok {
		return ""
	}
	return name
}

// Message is a message of PocketMQ read as an event. It can be read more than
// once.
type Message struct {
	message *mq.Message
	format  format.Format // structured
	version spec.Version  // binary
	finish  func(error) error
}

var (
	_ binding.Message               = (*Message)(nil)
	_ binding.MessageMetadataReader = (*Message)(nil)
)

// NewMessage reads a message that some consumer of PocketMQ was given: for
// handlers that have events beside other messages. Its encoding is
// binding.EncodingUnknown if it is no event. Finish does nothing.
func NewMessage(m *mq.Message) *Message { return newMessage(m, func(error) error { return nil }) }

func newMessage(m *mq.Message, finish func(error) error) *Message {
	media := m.Properties[contentType]
	if media == "" {
		media = m.Properties[contentTypeAlso]
	}
	e := &Message{message: m, finish: finish}
	if e.format = format.Lookup(media); e.format == nil {
		if v := m.Properties[specVersion]; v != "" {
			e.version = spec.VS.Version(v)
		}
	}
	return e
}

// Received returns the message as PocketMQ delivered it: where it lies, how often
// it was delivered, its tag and keys. It is not to be changed.
func (m *Message) Received() *mq.Message { return m.message }

// ReadEncoding implements binding.MessageReader.
func (m *Message) ReadEncoding() binding.Encoding {
	switch {
	case m.format == format.JSONBatch:
		return binding.EncodingBatch
	case m.format != nil:
		return binding.EncodingStructured
	case m.version != nil:
		return binding.EncodingBinary
	default:
		return binding.EncodingUnknown
	}
}

// ReadStructured implements binding.MessageReader.
func (m *Message) ReadStructured(ctx context.Context, w binding.StructuredWriter) error {
	if m.format == nil {
		return binding.ErrNotStructured
	}
	return w.SetStructuredEvent(ctx, m.format, bytes.NewReader(m.message.Body))
}

// ReadBinary implements binding.MessageReader.
func (m *Message) ReadBinary(_ context.Context, w binding.BinaryWriter) error {
	if m.version == nil {
		return binding.ErrNotBinary
	}
	// First the version, which says what the others mean.
	if err := w.SetAttribute(m.version.AttributeFromKind(spec.SpecVersion), m.version.String()); err != nil {
		return err
	}
	for property, value := range m.message.Properties {
		name := nameOf(property)
		if name == "" {
			continue
		}
		var err error
		if a := m.version.Attribute(name); a != nil {
			err = w.SetAttribute(a, value)
		} else {
			err = w.SetExtension(name, value)
		}
		if err != nil {
			return err
		}
	}
	if len(m.message.Body) == 0 {
		return nil
	}
	return w.SetData(bytes.NewReader(m.message.Body))
}

// GetAttribute implements binding.MessageMetadataReader.
func (m *Message) GetAttribute(kind spec.Kind) (spec.Attribute, any) {
	if m.version == nil {
		return nil, nil
	}
	a := m.version.AttributeFromKind(kind)
	if a == nil {
		return nil, nil
	}
	value, there := m.message.Properties[propertyOf(a.Name())]
	if !there && kind == spec.DataContentType {
		value, there = m.message.Properties[contentTypeAlso]
	}
	if !there {
		return a, nil
	}
	return a, value
}

// GetExtension implements binding.MessageMetadataReader.
func (m *Message) GetExtension(name string) any {
	if value, there := m.message.Properties[prefix+name]; there && m.version != nil {
		return value
	}
	return nil
}

// Finish implements binding.Message: of a message that a Receiver returned, an
// error that is no ACK makes it come again, everything else consumes it. Only the
// first call counts.
//
// Errors: those of mq.SimpleConsumer.Ack.
func (m *Message) Finish(err error) error { return m.finish(err) }
