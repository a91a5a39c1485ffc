package pocketmq

import (
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill/components/delay"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pocketmq/mq"
)

// dueAt returns when a message is to be delivered by the metadata that
// Watermill's components/delay sets; zero: at once.
//
// There are two of them. "until" is absolute, but cut to a second. "for" is
// exact, but counts from when it was set, and a message that is forwarded later
// still has it. So it is "for" as long as that lies in the second that "until"
// names, and the end of that second otherwise: never early, and not delayed anew
// when it is published again.
func dueAt(metadata message.Metadata, now time.Time) (time.Time, error) {
	until, hasUntil, err := parsed(metadata, delay.DelayedUntilKey, func(s string) (time.Time, error) {
		return time.Parse(time.RFC3339, s)
	})
	if err != nil {
		return time.Time{}, err
	}
	wait, hasFor, err := parsed(metadata, delay.DelayedForKey, time.ParseDuration)
	if err != nil {
		return time.Time{}, err
	}
	switch end := until.Add(time.Second); {
	case hasFor && !hasUntil:
		return now.Add(wait), nil
	case hasUntil && hasFor && now.Add(wait).Before(end):
		return now.Add(wait), nil
	case hasUntil && hasFor:
		return end, nil
	default:
		return until, nil
	}
}

func parsed[T any](metadata message.Metadata, key string, parse func(string) (T, error)) (value T, there bool, err error) {
	text := metadata[key]
	if text == "" {
		return value, false, nil
	}
	if value, err = parse(text); err != nil {
		return value, false, fmt.Errorf("%w: metadata %s: %w", mq.ErrInvalidMessage, key, err)
	}
	return value, true, nil
}
