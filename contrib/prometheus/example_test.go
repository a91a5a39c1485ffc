package mqprom_test

import (
	"context"
	"fmt"
	"log"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pocketmq/mq"
	mqprom "github.com/pocketmq/mq/contrib/prometheus"
)

// A program registers a collector and serves its registry as it always does
// (promhttp.Handler). Here a test asks how far a group is behind.
func Example() {
	b, err := mq.OpenMemory(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()
	collector, err := mqprom.NewCollector(b, nil)
	if err != nil {
		log.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	// Where there is more than one broker, labels tell them apart.
	prometheus.WrapRegistererWith(prometheus.Labels{"cluster": "shop"}, registry).MustRegister(collector)

	c, err := b.NewPullConsumer("OrderGroup", nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := c.Subscribe("OrderTopic", mq.All); err != nil {
		log.Fatal(err)
	}
	p, err := b.NewProducer(nil)
	if err != nil {
		log.Fatal(err)
	}
	for range 3 {
		if _, err := p.Send(context.Background(), &mq.Message{Topic: "OrderTopic"}); err != nil {
			log.Fatal(err)
		}
	}
	families, err := registry.Gather()
	if err != nil {
		log.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "pocketmq_consumer_lag_messages" {
			fmt.Println(f.GetName(), f.Metric[0].Gauge.GetValue())
		}
	}
	// Output: pocketmq_consumer_lag_messages 3
}
