package mq

import (
	"maps"
	"slices"
	"sync"
)

// names finds topics and groups by name. It is written under the append lock,
// by the fold, and read without it.
type names struct {
	mu     sync.RWMutex
	topics map[string]*topic
	groups map[groupKey]*group
}

func newNames() names {
	return names{topics: map[string]*topic{}, groups: map[groupKey]*group{}}
}

func (n *names) topic(name string) *topic {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.topics[name]
}

func (n *names) group(key groupKey) *group {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.groups[key]
}

// addTopic gives t its name. A replay behind a fuzzy checkpoint meets topics
// again that were deleted since: they do not take the name from a newer one.
func (n *names) addTopic(t *topic) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if had := n.topics[t.name]; had == nil || had.id < t.id {
		n.topics[t.name] = t
	}
}

func (n *names) dropTopic(t *topic) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.topics[t.name] == t {
		delete(n.topics, t.name)
	}
}

// addGroup and dropGroup do for groups what addTopic and dropTopic do.
func (n *names) addGroup(g *group) {
	n.mu.Lock()
	defer n.mu.Unlock()
	key := groupKey{g.name, g.instance}
	if had := n.groups[key]; had == nil || had.id < g.id {
		n.groups[key] = g
	}
}

func (n *names) dropGroup(g *group) {
	n.mu.Lock()
	defer n.mu.Unlock()
	key := groupKey{g.name, g.instance}
	if n.groups[key] == g {
		delete(n.groups, key)
	}
}

func (n *names) topicNames() []string {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return slices.Sorted(maps.Keys(n.topics))
}

// groupsNamed returns the groups of that name: one, or one per broadcasting
// member; of all names if it is empty.
func (n *names) groupsNamed(name string) []*group {
	n.mu.RLock()
	defer n.mu.RUnlock()
	var found []*group
	for key, g := range n.groups {
		if name == "" || key.name == name {
			found = append(found, g)
		}
	}
	slices.SortFunc(found, compareGroups)
	return found
}
