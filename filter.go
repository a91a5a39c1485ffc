package mq

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"

	"github.com/pocketmq/mq/internal/record"
)

// Filter says which messages of a topic a subscription wants. The zero value,
// All, wants every message. Tags, TagExpr and SQL make others. A filter does not
// change, and any number of subscriptions may share it.
type Filter struct {
	tags   []string   // sorted, without repeats; none is all
	hashes []uint64   // of tags, in their order
	sql    *sqlFilter // of SQL: there are no tags then
	err    error      // what was wrong with the expression; Subscribe reports it
}

// All wants every message.
var All = Filter{}

// Tags wants messages whose tag is one of tags. Without tags it wants every
// message.
func Tags(tags ...string) Filter {
	var f Filter
	for _, tag := range tags {
		if err := validateFilterTag(tag); err != nil {
			f.err = err
			return f
		}
	}
	f.tags = slices.Compact(slices.Sorted(slices.Values(tags)))
	for _, tag := range f.tags {
		f.hashes = append(f.hashes, tagHash(tag))
	}
	return f
}

// TagExpr reads RocketMQ's tag expression: tags separated by ||, surrounded by
// white space or not; * or an empty expression wants every message (RocketMQ's
// FilterAPI). An expression with an empty tag, such as "A ||", is an error that
// Subscribe reports.
func TagExpr(expr string) Filter {
	trimmed := strings.TrimSpace(expr)
	if trimmed == "" || trimmed == "*" {
		return All
	}
	parts := strings.Split(trimmed, "||")
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
		if parts[i] == "" {
			return Filter{err: fmt.Errorf("%w: %.200q: tag %d is empty", ErrInvalidFilter, expr, i+1)}
		}
	}
	return Tags(parts...)
}

func validateFilterTag(tag string) error {
	switch {
	case tag == "":
		return fmt.Errorf("%w: empty tag", ErrInvalidFilter)
	case len(tag) > record.MaxTag:
		return fmt.Errorf("%w: tag %.20q… has %d bytes, at most %d", ErrInvalidFilter, tag, len(tag), record.MaxTag)
	}
	return nil
}

// String returns the expression: "*", the sorted tags joined by " || ", or that
// of SQL as it was written.
func (f Filter) String() string {
	if f.sql != nil {
		return f.sql.expr.String()
	}
	if len(f.tags) == 0 {
		return "*"
	}
	return strings.Join(f.tags, " || ")
}

// matchHash is the first look, on the 8 bytes in the index: false is final.
func (f *Filter) matchHash(hash uint64) bool {
	return len(f.hashes) == 0 || slices.Contains(f.hashes, hash)
}

// matchTag is the second look, on the message: two tags may share a hash.
func (f *Filter) matchTag(tag []byte) bool {
	if len(f.tags) == 0 {
		return true
	}
	for _, want := range f.tags {
		if want == string(tag) {
			return true
		}
	}
	return false
}

// equal compares what the filters mean, not how they are written: a tag may hold
// any byte.
func (f *Filter) equal(g Filter) bool {
	if f.sql == nil || g.sql == nil {
		return f.sql == g.sql && slices.Equal(f.tags, g.tags)
	}
	return f.sql.expr.Equal(g.sql.expr)
}

// tagHash is the hash of a tag in the index. No tag is 0.
func tagHash(tag string) uint64 {
	if tag == "" {
		return 0
	}
	return xxhash.Sum64String(tag)
}
