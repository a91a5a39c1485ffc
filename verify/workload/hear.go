package workload

import (
	"fmt"
	"io"
	"maps"
	"strconv"
	"strings"

	"github.com/pocketmq/mq"
	"github.com/pocketmq/mq/internal/history"
)

// hear takes one line: most of them are an operation of the history.
func (l *Ledger) hear(line string) error {
	what, rest := firstWord(line)
	f := &fields{words: strings.Fields(rest)}
	switch what {
	case "try":
		l.hearTry(f.word(), f.hex(), f.number(), f)
	case "sent":
		l.hearSent(f)
	case "unsent":
		if number := f.hex(); f.err == nil {
			l.judge.Add(history.Op{Kind: history.OpFailed, ID: l.name(number)})
		}
	case "polling", "dealt":
		kind := map[string]history.Kind{"polling": history.OpPolling, "dealt": history.OpJoin}[what]
		if group := f.word(); f.err == nil {
			l.judge.Add(history.Op{Kind: kind, Group: group, Member: group})
		}
	case "got":
		group, p, number, size, whole := f.word(), f.place(), f.hex(), f.number(), f.word()
		if f.err == nil {
			l.hearDelivery(group, p, number, size, whole == "true")
		}
	case "acking":
		l.hearAcking(f)
	case "acked":
		l.hearAcked(f.word(), f)
	case "done":
		if group, p := f.word(), f.place(); f.err == nil {
			l.hearDone(group, p)
		}
	case "sync":
		l.hearSync(rest)
	case "synced":
		l.hearSynced(rest)
	case "opened":
		l.hearOpened(f)
	default:
		l.hearOfLife(what, rest)
	}
	return f.err
}

// hearOfLife takes lines about the process.
func (l *Ledger) hearOfLife(what, rest string) {
	switch what {
	case "topic":
		if !l.cut {
			l.topics[rest] = true
		}
	case "closed":
		l.life.closed = true
	case "poisoned":
		l.life.Poisoned = rest
	case "hung":
		l.life.Hung = append(l.life.Hung, rest)
	case "unreadable":
		l.life.Unreadable = append(l.life.Unreadable, rest)
	case "refused":
		l.life.Refusal = rest
	case "failed", "gave":
		l.life.Failed[rest]++
		l.life.closeFailed = l.life.closeFailed || strings.HasPrefix(rest, "close ")
	case "full":
		l.life.Full = true
	case "room":
		l.life.Room = true
	case "left":
	default:
		l.problem("%s %s", what, rest)
	}
}

func (l *Ledger) hearOpened(f *fields) {
	clean := f.word() == "true"
	f.number() // ranges that were cut
	corrupt := f.number()
	if clean && l.life.opened && !l.life.closeFailed {
		l.problem("a store that was not closed opens as if it had been")
	}
	if corrupt != 0 {
		l.problem("opening found %d places below the synced mark damaged", corrupt)
	}
	l.life.opened, l.life.closed, l.life.closeFailed = true, false, false
}

// ---- sending

// name is the id of a message in the history: there is one string of it.
func (l *Ledger) name(number uint64) string {
	name := l.names[number]
	if name == "" {
		name = strconv.FormatUint(number, 16)
		l.names[number] = name
	}
	return name
}

// hashOf stands for a body. What is in one that is whole follows from number and
// size.
func hashOf(size uint64, whole bool) uint64 {
	if !whole {
		return 0
	}
	return size
}

// promises are how durable things are, as the history says it.
func promises(d mq.Durability) history.Durability {
	if d == mq.Synced {
		return history.Synced
	}
	return history.Written
}

func (l *Ledger) hearTry(topic string, number, size uint64, f *fields) {
	if f.err != nil {
		return
	}
	l.trying[number] = true
	l.judge.Add(history.Op{
		Kind: history.OpSend, ID: l.name(number), Topic: topic, Hash: hashOf(size, true), Durability: promises(durability(topic)),
	})
}

func (l *Ledger) hearSent(f *fields) {
	promise, p, word, number := f.word(), f.place(), f.word(), f.hex()
	id, err := mq.ParseID(word)
	if f.err == nil {
		f.err = err
	}
	if f.err != nil {
		return
	}
	l.Acknowledged++
	delete(l.trying, number)
	if l.given[id] {
		l.problem("%v: id %v was given to two messages", p, id)
	}
	l.given[id], l.ids[number] = true, id
	l.sent = append(l.sent, told{number, id, p})
	op := history.Op{Kind: history.OpSent, ID: l.name(number), Queue: int(p.queue.ID), Offset: int64(p.offset)}
	if promise == "s" {
		op.Durability = history.Synced
	}
	if l.grey[number] {
		op = history.Op{Kind: history.OpUnknown, ID: op.ID}
	}
	l.judge.Add(op)
}

// ---- consuming

func opAt(kind history.Kind, group string, p place) history.Op {
	return history.Op{Kind: kind, Group: group, Topic: p.queue.Topic, Queue: int(p.queue.ID), Offset: int64(p.offset)}
}

func (l *Ledger) hearDelivery(group string, p place, number, size uint64, whole bool) {
	l.groups[group] = true
	if durability(p.queue.Topic) == mq.Synced {
		if l.grey[number] {
			return // it may be seen for the same reason for which its send may return
		}
		delete(l.trying, number) // seen, so it is synced
	}
	op := opAt(history.OpPoll, group, p)
	op.Member, op.ID, op.Hash = group, l.name(number), hashOf(size, whole)
	if op.Unordered = group == pushGroup; !op.Unordered {
		l.judge.Add(op)
		return
	}
	// Handlers run side by side, and the group acknowledges by itself, at any time.
	l.call++
	ack := opAt(history.OpAck, group, p)
	ack.Call, ack.Durability = l.call, history.Written
	l.judge.Add(op, ack)
}

// begun returns the call of a name, which begins with its first line.
func (l *Ledger) begun(name string) *call {
	c := l.calls[name]
	if c == nil {
		l.call++
		c = &call{number: l.call}
		l.calls[name] = c
	}
	return c
}

// over returns the call of a name, which ends. The power may have gone while it
// was under way: nil then.
func (l *Ledger) over(name string) *call {
	c := l.calls[name]
	delete(l.calls, name)
	if c == nil && !l.cut {
		l.problem("%s ended and did not begin", name)
	}
	return c
}

func (l *Ledger) hearAcking(f *fields) {
	name, promise, group, p := f.word(), f.word(), f.word(), f.place()
	if f.err != nil {
		return
	}
	l.groups[group] = true
	op := opAt(history.OpAck, group, p)
	op.Durability = history.Written
	if promise == "s" {
		op.Durability = history.Synced
	}
	c := l.begun(name)
	c.acks++
	op.Call = c.number
	l.judge.Add(op)
}

func (l *Ledger) hearAcked(name string, f *fields) {
	if f.err != nil {
		return
	}
	if c := l.over(name); c != nil {
		l.Acks += c.acks
		l.judge.Add(history.Op{Kind: history.OpAcked, Call: c.number})
	}
}

// hearDone: a push group acknowledges by itself, and can be asked how far it is.
func (l *Ledger) hearDone(group string, p place) {
	l.groups[group] = true
	key := groupQueue{group, p.queue}
	had := l.done[key]
	if p.offset < had {
		l.again++
		l.problem("%s: %v was acknowledged up to %d and is up to %d", group, p.queue, had, p.offset)
	}
	l.Acks += int64(max(0, p.offset-had))
	l.acknowledged(key, had, p.offset)
	l.done[key] = p.offset
}

// acknowledged enters that what lies in [from, to) is.
func (l *Ledger) acknowledged(key groupQueue, from, to mq.Offset) {
	if from >= to {
		return
	}
	l.call++
	for off := from; off < to; off++ {
		op := opAt(history.OpAck, key.group, place{key.queue, off})
		op.Call, op.Durability = l.call, history.Written
		l.judge.Add(op)
	}
	l.judge.Add(history.Op{Kind: history.OpAcked, Call: l.call})
}

// ---- the store

func (l *Ledger) hearSync(name string) {
	c := l.begun("sync " + name)
	c.done = maps.Clone(l.done)
	l.judge.Add(history.Op{Kind: history.OpSync, Call: c.number})
}

func (l *Ledger) hearSynced(name string) {
	c := l.over("sync " + name)
	if c == nil {
		return
	}
	l.judge.Add(history.Op{Kind: history.OpSyncDone, Call: c.number})
	for key, off := range c.done {
		l.firm[key] = max(l.firm[key], off)
	}
}

// fields reads the words of a line; the first mistake stays.
type fields struct {
	words []string
	err   error
}

func (f *fields) word() string {
	if len(f.words) == 0 {
		f.err = io.ErrUnexpectedEOF
		return ""
	}
	w := f.words[0]
	f.words = f.words[1:]
	return w
}

func (f *fields) parse(base int) uint64 {
	n, err := strconv.ParseUint(f.word(), base, 63)
	if err != nil && f.err == nil {
		f.err = err
	}
	return n
}

func (f *fields) number() uint64 { return f.parse(10) }
func (f *fields) hex() uint64    { return f.parse(16) }

// place checks what would make a history of any size of one bad line.
func (f *fields) place() place {
	p := place{queue: mq.Queue{Topic: f.word(), ID: mq.QueueID(f.number())}, offset: mq.Offset(f.number())} //nolint:gosec // 63 bits
	if p.offset > 1<<30 && f.err == nil {
		f.err = fmt.Errorf("offset %d", p.offset)
	}
	return p
}
