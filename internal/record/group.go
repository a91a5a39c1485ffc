package record

// A group's payload, all numbers varints but the kind of group:
//
//	+------+------+-------+----------+------+--------------+----------+--------+
//	| kind | id/8 | flags | name len | name | instance len | instance | policy |
//	+------+------+-------+----------+------+--------------+----------+--------+
//	flags: bit 0 a policy follows
const groupPolicy = 1 << 0

// Group says that a consumer group, or one broadcasting member of it, is there.
// Like Topic it is written again when it is changed and when retention would lose
// it.
type Group struct {
	ID       GroupID // 0: the position of this record, which creates the group
	Name     string
	Instance string  // the member that has offsets of its own; empty in clustering
	Policy   *Policy // for what fails; nil: as each consumer has it
}

// Validate reports what keeps the record from being encoded. Which names are
// fit for a group is not its business.
func (g *Group) Validate() error { return invalid(KindGroup, g.flaw()) }

func (g *Group) flaw() string {
	if g.ID != 0 && !canName(g.ID) {
		return "id is no record"
	}
	return g.Policy.flaw()
}

// Size returns the length of the encoded record, which must be valid.
func (g *Group) Size() int {
	return 1 + idLen(g.ID) + 1 + textLen(g.Name) + textLen(g.Instance) + policyLen(g.Policy)
}

// Put writes the record into dst, which must be as long as Size said.
func (g *Group) Put(dst []byte) {
	var flags byte
	if g.Policy != nil {
		flags |= groupPolicy
	}
	out := append(dst[:0:len(dst)], byte(KindGroup))
	out = appendID(out, g.ID)
	out = append(out, flags)
	out = appendText(out, g.Name)
	out = appendText(out, g.Instance)
	mustFill(dst, appendPolicy(out, g.Policy))
}

// DecodeGroup reads the record in payload; nothing of it points into payload.
func DecodeGroup(payload []byte) (Group, error) {
	r := read(KindGroup, payload)
	var g Group
	g.ID = GroupID(r.id())
	flags := r.flags(groupPolicy)
	g.Name = r.text()
	g.Instance = r.text()
	if flags&groupPolicy != 0 {
		g.Policy = r.policy()
	}
	if err := r.end(g.flaw()); err != nil {
		return Group{}, err
	}
	return g, nil
}

// GroupDelete says that a group, or one broadcasting member of it, is gone with
// all its progress.
type GroupDelete struct {
	ID GroupID
}

// Validate reports what keeps the record from being encoded.
func (d *GroupDelete) Validate() error { return invalid(KindGroupDelete, deleteFlaw(d.ID)) }

// Size returns the length of the encoded record, which must be valid.
func (d *GroupDelete) Size() int { return 1 + idLen(d.ID) }

// Put writes the record into dst, which must be as long as Size said.
func (d *GroupDelete) Put(dst []byte) { putDelete(dst, KindGroupDelete, d.ID) }

// DecodeGroupDelete reads the record in payload.
func DecodeGroupDelete(payload []byte) (GroupDelete, error) {
	id, err := decodeDelete(KindGroupDelete, payload)
	return GroupDelete{ID: GroupID(id)}, err
}
