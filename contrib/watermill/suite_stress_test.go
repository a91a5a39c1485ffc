//go:build stress

package pocketmq_test

import (
	"testing"

	"github.com/ThreeDotsLabs/watermill/pubsub/tests"
)

// TestPubSubStress is the same suite, STRESS_TEST_COUNT times at once (10).
func TestPubSubStress(t *testing.T) { runSuite(t, tests.TestPubSubStressTest) }
