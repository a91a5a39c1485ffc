package mq

import (
	"fmt"
	"slices"

	"github.com/pocketmq/mq/internal/record"
	"github.com/pocketmq/mq/internal/sql92"
)

// ExpressionError says where an expression of SQL cannot be read: the offset in
// bytes, what stands there, and what could. It is found with errors.As in the
// ErrInvalidFilter that Subscribe returns.
type ExpressionError = sql92.SyntaxError

// SQL wants the messages for which a condition on their properties is true
// (RocketMQ's SQL92 filter, MessageSelector.bySql):
//
//	mq.SQL("amount > 100 AND region IN ('eu', 'us')")
//
// docs/filters.md has the language. Names are those of Message.Properties; TAGS
// is the tag, KEYS the keys with a space between them, and __SHARDINGKEY the
// sharding key. What a message does not have is NULL: comparisons with it are
// unknown, and unknown is not true.
//
// The condition is compiled here and evaluated where the message lies in the
// log: one that is not wanted costs no memory. An expression of more than 16 KiB,
// or one that cannot be read, is an error that Subscribe reports:
// ErrInvalidFilter, with an *ExpressionError that says where.
func SQL(expr string) Filter {
	e, err := sql92.Parse(expr)
	if err != nil {
		return Filter{err: fmt.Errorf("%w: %.200q: %w", ErrInvalidFilter, expr, err)}
	}
	return Filter{sql: newSQLFilter(e)}
}

// sqlFilter is an expression and where its columns come from. It does not change.
type sqlFilter struct {
	expr       *sql92.Expr
	columns    []sqlColumn
	properties bool // a column is a property
}

// sqlColumn is what an expression asks for by a name.
type sqlColumn struct {
	name string
	from columnSource
}

type columnSource uint8

const (
	fromProperty columnSource = iota
	fromTag
	fromKeys
	fromShardingKey
)

// systemColumns are the names that RocketMQ gives to what is no property here.
var systemColumns = map[string]columnSource{"TAGS": fromTag, "KEYS": fromKeys, "__SHARDINGKEY": fromShardingKey}

func newSQLFilter(e *sql92.Expr) *sqlFilter {
	s := &sqlFilter{expr: e}
	for _, name := range e.Columns() {
		from := systemColumns[name]
		s.columns = append(s.columns, sqlColumn{name, from})
		s.properties = s.properties || from == fromProperty
	}
	return s
}

// sqlScratch is memory that evaluations use again. Each goroutine has its own.
type sqlScratch struct {
	values [][]byte // in place, of the message that is looked at
	keys   []byte
	wanted int // messages of the fetch before
}

// room is how many messages to make room for behind n: about as many as the
// fetch before has wanted, for nobody knows how many this one will.
func (s *sqlScratch) room(n int) int {
	if n == 0 {
		return max(s.wanted+s.wanted/4, 4)
	}
	return n
}

// wants is the last look at a message, where it lies.
func (f *Filter) wants(v *record.View, s *sqlScratch) bool {
	if f.sql == nil {
		return f.matchTag(v.Tag)
	}
	f.sql.gather(v, s)
	return f.sql.expr.Match(s.values)
}

// gather finds the values of all columns, in one walk over the message's
// properties. What is not there is nil.
func (f *sqlFilter) gather(v *record.View, s *sqlScratch) {
	s.values = slices.Grow(s.values[:0], len(f.columns))[:len(f.columns)]
	clear(s.values)
	for i := range f.columns {
		switch f.columns[i].from {
		case fromTag:
			s.values[i] = orNil(v.Tag)
		case fromShardingKey:
			s.values[i] = orNil(v.ShardingKey)
		case fromKeys:
			s.values[i] = s.joinKeys(v)
		}
	}
	if !f.properties || v.Properties() == 0 {
		return
	}
	for fs := v.Fields(); fs.Next(); {
		if fs.Field.Type != record.FieldProperty {
			continue
		}
		for i := range f.columns {
			if c := &f.columns[i]; c.from == fromProperty && c.name == string(fs.Field.Name) {
				s.values[i] = fs.Field.Value
				break
			}
		}
	}
}

// orNil is nil for what is empty: no tag, no sharding key.
func orNil(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return b
}

// joinKeys returns the keys with a space between them, nil if there are none.
func (s *sqlScratch) joinKeys(v *record.View) []byte {
	if v.Keys() == 0 {
		return nil
	}
	s.keys = s.keys[:0]
	n := 0
	for fs := v.Fields(); fs.Next(); {
		if fs.Field.Type != record.FieldKey {
			continue
		}
		if v.Keys() == 1 {
			return fs.Field.Value
		}
		if n++; n > 1 {
			s.keys = append(s.keys, ' ')
		}
		s.keys = append(s.keys, fs.Field.Value...)
	}
	return s.keys
}

// wantsMessage is wants for a message that was read.
func (f *Filter) wantsMessage(m *Message) bool {
	head := record.Message{Topic: 64, Tag: m.Tag, ShardingKey: m.ShardingKey, Keys: m.Keys, Properties: m.Properties}
	size, err := head.HeadSize()
	if err != nil {
		return true // not possible: it was stored
	}
	payload := make([]byte, size)
	head.PutHead(payload)
	var v record.View
	return record.DecodeMessage(payload, &v) != nil || f.wants(&v, new(sqlScratch))
}
