package mqpubsub

import (
	"context"
	"errors"

	"gocloud.dev/gcerrors"

	"github.com/pocketmq/mq"
)

// errorCodes says which portable code stands for which errors of the broker.
var errorCodes = []struct {
	code gcerrors.ErrorCode
	errs []error
}{
	{gcerrors.NotFound, []error{mq.ErrTopicNotFound, mq.ErrGroupNotFound, mq.ErrQueueNotFound}},
	{gcerrors.InvalidArgument, []error{mq.ErrInvalidName, mq.ErrInvalidMessage, mq.ErrTooLarge, mq.ErrInvalidArgument, mq.ErrInvalidFilter, mq.ErrInvalidOptions}},
	{gcerrors.FailedPrecondition, []error{mq.ErrClosed, mq.ErrGroupKind, mq.ErrSubscriptionMismatch, mq.ErrInstanceInUse, mq.ErrLocked, mq.ErrNotAssigned, mq.ErrReceiptExpired}},
	{gcerrors.ResourceExhausted, []error{mq.ErrFull, mq.ErrDiskFull, mq.ErrBackpressure}},
	{gcerrors.Internal, []error{mq.ErrPoisoned, mq.ErrCorrupt}},
	{gcerrors.Canceled, []error{context.Canceled}},
	{gcerrors.DeadlineExceeded, []error{context.DeadlineExceeded}},
}

// failures is what topics and subscriptions have in common: how errors look to
// the portable type.
type failures struct{}

// ErrorCode implements driver.Topic and driver.Subscription.
func (failures) ErrorCode(err error) gcerrors.ErrorCode {
	for _, c := range errorCodes {
		for _, target := range c.errs {
			if errors.Is(err, target) {
				return c.code
			}
		}
	}
	return gcerrors.Unknown
}

// ErrorAs implements driver.Topic and driver.Subscription.
func (failures) ErrorAs(err error, target any) bool { return errors.As(err, target) }

// IsRetryable implements driver.Topic and driver.Subscription. The portable
// type retries for ever and tells nobody, so a full store is not among what it
// may retry: the sender has to know.
func (failures) IsRetryable(err error) bool { return errors.Is(err, mq.ErrBackpressure) }
