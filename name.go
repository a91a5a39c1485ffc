package mq

import (
	"fmt"
	"strings"
)

// Longest names, in bytes (RocketMQ's TopicValidator and Validators).
const (
	maxTopicName = 127
	maxGroupName = 120
)

// reservedTopics are RocketMQ's system topics (TopicValidator): sending to them
// or creating them is refused, so that programs mean the same here and there.
var reservedTopics = map[string]bool{
	"TBW102": true, "SCHEDULE_TOPIC_XXXX": true, "BenchmarkTest": true,
	"RMQ_SYS_TRANS_HALF_TOPIC": true, "RMQ_SYS_TRANS_OP_HALF_TOPIC": true,
	"TRANS_CHECK_MAX_TIME_TOPIC": true, "RMQ_SYS_TRACE_TOPIC": true,
	"SELF_TEST_TOPIC": true, "OFFSET_MOVED_EVENT": true, "CHECKPOINT_TOPIC": true,
}

// reservedGroups are RocketMQ's system groups (MixAll).
var reservedGroups = map[string]bool{
	"DEFAULT_CONSUMER": true, "DEFAULT_PRODUCER": true, "TOOLS_CONSUMER": true,
	"FILTERSRV_CONSUMER": true, "__MONITOR_CONSUMER": true, "CLIENT_INNER_PRODUCER": true,
	"SELF_TEST_P_GROUP": true, "SELF_TEST_C_GROUP": true, "CID_ONS-HTTP-PROXY": true,
}

// reservedPrefixes of topics: RocketMQ's system topics, and the topics that the
// engine derives from a group.
var reservedPrefixes = []string{"rmq_sys_", "%RETRY%", "%DLQ%", parkPrefix, "%LMQ%"}

func validateTopic(name string) error {
	if err := validateName("topic", name, maxTopicName); err != nil {
		return err
	}
	if reservedTopics[name] {
		return fmt.Errorf("%w: topic %q is reserved", ErrInvalidName, name)
	}
	for _, prefix := range reservedPrefixes {
		if strings.HasPrefix(name, prefix) {
			return fmt.Errorf("%w: topic %q: prefix %s is reserved", ErrInvalidName, name, prefix)
		}
	}
	return nil
}

func validateGroup(name string) error {
	if err := validateName("group", name, maxGroupName); err != nil {
		return err
	}
	if reservedGroups[name] || derived(name) || strings.HasPrefix(name, "CID_RMQ_SYS_") || strings.HasPrefix(name, "CID_ONSAPI_") {
		return fmt.Errorf("%w: group %q is reserved", ErrInvalidName, name)
	}
	return nil
}

func validateInstance(name string) error {
	return validateName("instance", name, maxGroupName)
}

// validateName accepts what RocketMQ's TopicValidator accepts:
// ^[%|a-zA-Z0-9_-]+$.
func validateName(what, name string, longest int) error {
	if name == "" {
		return fmt.Errorf("%w: %s is empty", ErrInvalidName, what)
	}
	if len(name) > longest {
		return fmt.Errorf("%w: %s %.20q… has %d bytes, at most %d", ErrInvalidName, what, name, len(name), longest)
	}
	for i := range len(name) {
		if !nameByte(name[i]) {
			return fmt.Errorf("%w: %s %q: %q at %d, want letters, digits, %%, |, _ or -", ErrInvalidName, what, name, name[i], i)
		}
	}
	return nil
}

func nameByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
		c == '_' || c == '-' || c == '%' || c == '|'
}
