package mqotel_test

import (
	"context"
	"fmt"
	"log"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/pocketmq/mq"
	mqotel "github.com/pocketmq/mq/contrib/otel"
)

// A message sent in the trace of a request, and handled in one of its own that links
// to it. A program hands in the provider it has; this one keeps spans in memory.
func Example() {
	ctx := context.Background()
	spans := tracetest.NewSpanRecorder()
	t, err := mqotel.New(&mqotel.Options{TracerProvider: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))})
	if err != nil {
		log.Fatal(err)
	}
	b, err := mq.OpenMemory(nil)
	if err != nil {
		log.Fatal(err)
	}
	handled := make(chan struct{})
	c, err := t.NewPushConsumer(b, "OrderGroup", func(context.Context, *mq.Message) error {
		close(handled)
		return nil
	}, nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := c.Subscribe("OrderTopic", mq.All); err != nil {
		log.Fatal(err)
	}
	p, err := t.NewProducer(b, nil)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := p.Send(ctx, &mq.Message{Topic: "OrderTopic", Body: []byte("two teapots")}); err != nil {
		log.Fatal(err)
	}
	<-handled
	if err := b.Shutdown(ctx); err != nil { // handlers under way return, and their spans end
		log.Fatal(err)
	}
	for _, s := range spans.Ended() {
		fmt.Printf("%s (%v), links: %d\n", s.Name(), s.SpanKind(), len(s.Links()))
	}
	// Unordered output:
	// send OrderTopic (producer), links: 0
	// process OrderTopic (consumer), links: 1
}
