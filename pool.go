package mq

import "slices"

// pool lets all members of a group of simple consumers take from every queue
// of their topics. Nothing is dealt out: the cursors have one owner, which is
// no consumer, and whoever asks first is given what is there. What a queue may
// have out at once is a matter of the group, so the owner has the bounds of the
// member that joined first.
//
// Guarded by group.mu.
type pool struct {
	*member           // owner of the cursors
	sharing []*member // the group's, in the order they joined
	turn    int       // of sharing, to be woken
}

// newPool makes the pool of a group whose first member is m.
func newPool(m *member) *pool {
	owner := m.b.newMember(m.groupName, "", m.kind)
	owner.group, owner.name, owner.acks = m.group, m.groupName, m.acks
	owner.maxOut, owner.maxOutBytes = m.maxOut, m.maxOutBytes
	p := &pool{member: owner}
	owner.pool = p
	return p
}

// shareLocked is called when members have come, gone, or changed what they
// subscribe to: what is ready may be for others now than it was.
func (p *pool) shareLocked(members []*member) {
	p.sharing = append(p.sharing[:0], members...)
	clear(p.sharing[len(p.sharing):cap(p.sharing)])
	p.wakeMoreLocked()
}

// wakeLocked wakes one goroutine that waits and may take from c, of another
// member than the last time if there is a choice.
func (p *pool) wakeLocked(c *cursor) {
	for range p.sharing {
		p.turn = (p.turn + 1) % len(p.sharing)
		if m := p.sharing[p.turn]; len(m.parked) > 0 && m.mayTakeLocked(c) {
			m.wakeOneLocked()
			return
		}
	}
}

// wakeMoreLocked wakes a goroutine for each cursor that is ready. Who was woken
// and takes nothing calls it, so that no wake-up is lost on it.
func (p *pool) wakeMoreLocked() {
	for _, c := range p.ready {
		p.wakeLocked(c)
	}
}

// takeForLocked takes the cursor that has waited longest of those that m may
// take from; nil if there is none.
func (p *pool) takeForLocked(m *member) *cursor {
	at := slices.IndexFunc(p.ready, m.mayTakeLocked)
	if at < 0 {
		return nil
	}
	c := p.ready[at]
	p.ready = slices.Delete(p.ready, at, at+1)
	c.queued = false
	return c
}

func (p *pool) reachLocked(m *member) (reach []*cursor) {
	for _, c := range p.owned {
		if m.mayTakeLocked(c) {
			reach = append(reach, c)
		}
	}
	return reach
}

// mayTakeLocked reports whether m subscribes to the cursor's topic.
func (m *member) mayTakeLocked(c *cursor) bool {
	_, ok := m.topics[c.queue.topic]
	return ok
}
