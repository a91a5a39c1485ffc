package pocketmq

import (
	"context"
	"fmt"
	"io"

	"github.com/cloudevents/sdk-go/v2/binding"
	"github.com/cloudevents/sdk-go/v2/binding/format"
	"github.com/cloudevents/sdk-go/v2/binding/spec"
	"github.com/cloudevents/sdk-go/v2/types"

	"github.com/pocketmq/mq"
)

// partitionKey is the extension that says which events have an order.
const partitionKey = "partitionkey"

// WriteMessage fills the body and properties of out with an event, and its
// ShardingKey with the event's extension partitionkey if it has one and is not in
// structured mode. What out has besides stays. binding.WithForceBinary and
// WithForceStructured in ctx say which mode; an event that has none yet is
// written in binary mode.
//
// Errors: mq.ErrInvalidMessage for an extension called contenttype, which the
// draft has no place for; those of reading the event.
func WriteMessage(ctx context.Context, event binding.Message, out *mq.Message, transformers ...binding.Transformer) error {
	if out.Properties == nil {
		out.Properties = map[string]string{}
	}
	w := &writer{out}
	_, err := binding.Write(ctx, event, w, w, transformers...)
	return err
}

// writer writes an event in either mode.
type writer struct{ out *mq.Message }

var (
	_ binding.StructuredWriter = (*writer)(nil)
	_ binding.BinaryWriter     = (*writer)(nil)
)

// SetStructuredEvent implements binding.StructuredWriter.
func (w *writer) SetStructuredEvent(_ context.Context, f format.Format, event io.Reader) error {
	w.out.Properties[contentType] = f.MediaType()
	return w.SetData(event)
}

// Start and End implement binding.BinaryWriter.
func (w *writer) Start(context.Context) error { return nil }

// End implements binding.BinaryWriter.
func (w *writer) End(context.Context) error { return nil }

// SetData implements binding.BinaryWriter.
func (w *writer) SetData(data io.Reader) (err error) {
	w.out.Body, err = io.ReadAll(data)
	return err
}

// SetAttribute implements binding.MessageMetadataWriter.
func (w *writer) SetAttribute(a spec.Attribute, value any) error {
	return w.set(propertyOf(a.Name()), value)
}

// SetExtension implements binding.MessageMetadataWriter.
func (w *writer) SetExtension(name string, value any) error {
	if propertyOf(name) == contentType {
		return fmt.Errorf("%w: extension %s is where the type of the data is", mq.ErrInvalidMessage, name)
	}
	if err := w.set(prefix+name, value); err != nil || name != partitionKey {
		return err
	}
	w.out.ShardingKey = w.out.Properties[prefix+name]
	return nil
}

// set is given nil for what is to go.
func (w *writer) set(property string, value any) error {
	if value == nil {
		delete(w.out.Properties, property)
		return nil
	}
	text, err := types.Format(value)
	if err != nil {
		return err
	}
	w.out.Properties[property] = text
	return nil
}
