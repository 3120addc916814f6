package admission

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/reevehq/reeve/agent/internal/secrets"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// plan is what arrived, decoded: the manifest and this agent's changes.
type plan struct {
	digest    []byte
	manifest  *planv1.Manifest
	raw       []byte
	chunks    [][]byte
	changes   []*planv1.Change
	byID      map[string]*planv1.Change
	overtaken map[string]bool
}

// live returns the changes that are to run: all but those overtaken.
func (p *plan) live() []*planv1.Change {
	return slices.DeleteFunc(slices.Clone(p.changes), func(c *planv1.Change) bool { return p.overtaken[c.GetId()] })
}

func refusal(code, format string, args ...any) *auditv1.Refusal {
	return &auditv1.Refusal{Code: code, Sentence: fmt.Sprintf(format, args...)}
}

// maxPlan bounds what one plan may take of this agent's memory, in bytes of its
// chunks: what is owed must go on whatever is sent.
const maxPlan = 64 << 20

// readPlan takes manifest and chunks as they arrived. A refusal ends it; err is
// the stream's.
func (a *Admitter) readPlan(d Delivery) (*plan, *auditv1.Refusal, error) {
	p := &plan{digest: planv1.Digest(d.Manifest), manifest: &planv1.Manifest{}, raw: d.Manifest, byID: map[string]*planv1.Change{}, overtaken: map[string]bool{}}
	if err := planv1.Decode(d.Manifest, p.manifest); err != nil {
		return nil, refusal(CodeUnknownField, "the plan's manifest cannot be read: %v; update the agent if the control plane is newer", err), nil
	}
	id := a.o.Journal.Identity()
	m := p.manifest
	switch {
	case m.GetFormat() != 1:
		return nil, refusal(CodeFormat, "the plan has format %d, this agent knows 1; update the agent", m.GetFormat()), nil
	case m.GetTrustDomain() != id.TrustDomain || m.GetTenant() != id.Tenant:
		return nil, refusal(CodeAudience, "the plan is of another trust domain or tenant than this agent's (%s, %s)", id.TrustDomain, id.Tenant), nil
	}
	at := slices.IndexFunc(m.GetAudiences(), func(x *planv1.Audience) bool { return x.GetAgent() == id.Agent })
	if at < 0 {
		return nil, refusal(CodeAudience, "the plan does not name the agent %s", id.Agent), nil
	}
	var mine []*planv1.ChunkRef
	size := uint64(0)
	for _, c := range m.GetChunks() {
		if c.GetAgent() == id.Agent {
			mine, size = append(mine, c), size+uint64(c.GetSize())
		}
	}
	if size > maxPlan {
		return nil, refusal(CodeChunk, "the plan has %d bytes for this agent, which takes up to %d at once; split it", size, maxPlan), nil
	}
	n := 0
	for chunk, err := range d.Chunks {
		if err != nil {
			return nil, nil, err
		}
		if n >= len(mine) {
			return nil, refusal(CodeChunk, "more than the %d chunks that the plan lists arrived", len(mine)), nil
		}
		if r := p.addChunk(chunk, mine[n], n); r != nil {
			return nil, r, nil
		}
		n++
	}
	if n < len(mine) {
		return nil, refusal(CodeChunk, "only %d of the %d chunks that the plan lists arrived", n, len(mine)), nil
	}
	return p, nil, nil
}

func (p *plan) addChunk(chunk []byte, ref *planv1.ChunkRef, n int) *auditv1.Refusal {
	if len(chunk) > 1<<20 || uint32(len(chunk)) != ref.GetSize() || !bytes.Equal(planv1.Digest(chunk), ref.GetDigest()) {
		return refusal(CodeChunk, "chunk %d is not the one that the plan lists", n)
	}
	var c planv1.Chunk
	if err := planv1.Decode(chunk, &c); err != nil {
		return refusal(CodeUnknownField, "chunk %d cannot be read: %v; update the agent if the control plane is newer", n, err)
	}
	if len(c.GetSalt()) < 16 || uint32(len(c.GetChanges())) != ref.GetChanges() {
		return refusal(CodeChunk, "chunk %d has no salt, or another number of changes than listed", n)
	}
	p.chunks = append(p.chunks, chunk)
	p.changes = append(p.changes, c.GetChanges()...)
	return nil
}

// shape checks every change's own fields.
func (a *Admitter) shape(ctx context.Context, p *plan, now time.Time) ([]*auditv1.Refusal, error) {
	var out []*auditv1.Refusal
	refuse := func(c *planv1.Change, code, format string, args ...any) {
		r := refusal(code, format, args...)
		r.Change = c.GetId()
		out = append(out, r)
	}
	used := map[string]bool{}
	for _, audience := range p.manifest.GetAudiences() {
		if audience.GetAgent() == a.o.Journal.Identity().Agent {
			for _, alias := range audience.GetConnectors() {
				used[alias] = true
			}
		}
	}
	types := map[string][]*connectorv1.ObjectType{}
	level := uint32(0)
	for _, c := range p.changes {
		if c.GetId() == "" || len(c.GetId()) > 256 || p.byID[c.GetId()] != nil {
			refuse(c, CodeChange, "the change id %q is empty, too long or used twice", c.GetId())
			continue
		}
		p.byID[c.GetId()] = c
		if c.GetLevel() < level {
			refuse(c, CodeChange, "change %s is of level %d after level %d", c.GetId(), c.GetLevel(), level)
		}
		level = c.GetLevel()
	}
	for _, c := range p.changes {
		connector, known := a.o.Connectors[c.GetConnector()]
		if !known || !used[c.GetConnector()] {
			refuse(c, CodeChange, "change %s is for the connector %q, which agent.yaml or the plan's manifest does not have", c.GetId(), c.GetConnector())
			continue
		}
		if sentence := p.order(c); sentence != "" {
			refuse(c, CodeChange, "change %s %s", c.GetId(), sentence)
		}
		if types[c.GetConnector()] == nil {
			if err := connector.Directory.Ready(ctx); err != nil {
				return nil, fmt.Errorf("%w: connector %s: %w", ErrDirectory, c.GetConnector(), err)
			}
			types[c.GetConnector()] = connector.Directory.Types()
		}
		if sentence := p.operation(c, types[c.GetConnector()], a.o.Recipients, now); sentence != "" {
			refuse(c, CodeChange, "change %s %s", c.GetId(), sentence)
		}
		if sentence := mode(connector, c.GetOperation().Kind()); sentence != "" {
			refuse(c, CodeMode, "change %s: connector %s %s", c.GetId(), c.GetConnector(), sentence)
		}
	}
	if id := p.circle(); id != "" {
		refuse(p.byID[id], CodeChange, "change %s depends on itself through others", id)
	}
	return out, nil
}

func mode(c Connector, kind connectorv1.OperationKind) string {
	switch {
	case c.Role == agentv1.ConnectorState_ROLE_SOURCE:
		return "is a source, and a source is only read"
	case c.Mode == agentv1.ConnectorState_MODE_ENFORCE:
		return ""
	case c.Mode == agentv1.ConnectorState_MODE_ADOPT && kind == connectorv1.OperationKind_OPERATION_KIND_CREATE:
		return "is in mode adopt, in which nothing is created; set mode: enforce in agent.yaml when the client agrees"
	case c.Mode == agentv1.ConnectorState_MODE_ADOPT:
		return ""
	default:
		return "is in mode observe, in which nothing is changed; set mode: adopt or enforce in agent.yaml when the client agrees"
	}
}

// dependencies are what a change names under depends_on, and the changes that
// create what it refers to.
func dependencies(c *planv1.Change) []string {
	out := slices.Clone(c.GetDependsOn())
	for _, ref := range allRefs(c.GetOperation()) {
		if ref.GetChange() != "" {
			out = append(out, ref.GetChange())
		}
	}
	return out
}

func allRefs(op *connectorv1.Operation) []*connectorv1.ObjectRef {
	refs := append([]*connectorv1.ObjectRef{op.GetObject()}, op.GetCreate().GetMembers()...)
	for _, d := range op.GetUpdate().GetDeltas() {
		refs = append(refs, d.GetAddRefs()...)
		refs = append(refs, d.GetRemoveRefs()...)
	}
	return append(refs, op.GetAddMember().GetMember(), op.GetRemoveMember().GetMember())
}

// Dependencies returns the changes without whose success a change is skipped.
func Dependencies(c *planv1.Change) []string { return dependencies(c) }

func (p *plan) order(c *planv1.Change) string {
	for _, id := range dependencies(c) {
		d := p.byID[id]
		if d == nil || id == c.GetId() || d.GetLevel() > c.GetLevel() {
			return fmt.Sprintf("depends on %q, which is not an earlier change of this plan", id)
		}
	}
	for _, ref := range allRefs(c.GetOperation()) {
		if made := p.byID[ref.GetChange()]; made != nil && (made.GetOperation().GetCreate() == nil ||
			made.GetConnector() != c.GetConnector() || made.GetOperation().GetObject().GetType() != ref.GetType()) {
			return fmt.Sprintf("refers to what change %s creates, which does not create a %q there", made.GetId(), ref.GetType())
		}
	}
	return ""
}

// circle returns a change that depends on itself, or nothing. Levels ascend, so a
// circle lies within one.
func (p *plan) circle() string {
	const visiting, done = 1, 2
	state := map[string]int{}
	var visit func(id string) bool
	visit = func(id string) bool {
		c := p.byID[id]
		if c == nil || state[id] == done {
			return false
		}
		if state[id] == visiting {
			return true
		}
		state[id] = visiting
		if slices.ContainsFunc(dependencies(c), visit) {
			return true
		}
		state[id] = done
		return false
	}
	for _, c := range p.changes {
		if visit(c.GetId()) {
			return c.GetId()
		}
	}
	return ""
}

// lastYear bounds the ends of grants: the journal orders them by nanoseconds since
// 1970, of which 64 bits hold 292 years.
const lastYear = 2200

// operation says what is wrong with a change's operation, or nothing.
func (p *plan) operation(c *planv1.Change, types []*connectorv1.ObjectType, recipients interface{ Has(string) bool }, now time.Time) string {
	op := c.GetOperation()
	kind := op.Kind()
	if op.GetId() != "" {
		return "carries an operation id; a plan has none"
	}
	at := slices.IndexFunc(types, func(t *connectorv1.ObjectType) bool { return t.GetName() == op.GetObject().GetType() })
	if at < 0 {
		return fmt.Sprintf("is about the type %q, which the connector does not have", op.GetObject().GetType())
	}
	t := types[at]
	if !t.Allows(kind) {
		return fmt.Sprintf("would %s a %s, which the connector does not do", kind.Word(), t.GetName())
	}
	if end := c.GetEndsAt(); end != nil {
		switch {
		case kind != connectorv1.OperationKind_OPERATION_KIND_ADD_MEMBER:
			return "has an end, which only a membership can have"
		case c.GetGrant() == "":
			return "has an end and no grant that it belongs to"
		case !end.IsValid() || end.AsTime().Year() > lastYear:
			return fmt.Sprintf("has an end that is no time up to the year %d", lastYear)
		case !end.AsTime().After(now):
			return fmt.Sprintf("ends at %s, which has passed", end.AsTime().UTC().Format(time.RFC3339))
		}
	}
	if create := op.GetCreate(); create != nil {
		if o := op.GetObject(); o.GetAnchor() != "" || o.GetChange() != "" || o.GetName() != nil {
			return "creates an object and names another one"
		}
		return createShape(create, t, types)
	}
	for i, ref := range allRefs(op) {
		if i > 0 && ref == nil {
			continue
		}
		if (ref.GetAnchor() == "") == (ref.GetChange() == "") || ref.GetName() != nil {
			return "names an object otherwise than by one anchor or one change"
		}
		if !slices.ContainsFunc(types, func(t *connectorv1.ObjectType) bool { return t.GetName() == ref.GetType() }) {
			return fmt.Sprintf("names an object of the type %q, which the connector does not have", ref.GetType())
		}
	}
	for _, e := range op.GetExpect() {
		if declared := t.AttributeType(e.GetAttribute()); declared == nil || declared.GetSecret() {
			return fmt.Sprintf("expects something of the attribute %q, which cannot be read", e.GetAttribute())
		}
		// An answer tells what the attribute holds: none about what stays in here.
		if !slices.ContainsFunc(op.GetUpdate().GetDeltas(), func(d *connectorv1.ValueDelta) bool { return strings.EqualFold(d.GetAttribute(), e.GetAttribute()) }) {
			return fmt.Sprintf("expects something of the attribute %q, which it does not change", e.GetAttribute())
		}
	}
	switch action := op.GetAction().(type) {
	case *connectorv1.Operation_Update:
		return updateShape(action.Update, t)
	case *connectorv1.Operation_Rename:
		if len(action.Rename.GetTo().GetParts()) == 0 {
			return "renames to nothing"
		}
	case *connectorv1.Operation_AddMember:
		if action.AddMember.GetMember() == nil {
			return "adds nobody"
		}
	case *connectorv1.Operation_RemoveMember:
		if action.RemoveMember.GetMember() == nil {
			return "removes nobody"
		}
	case *connectorv1.Operation_SetCredential:
		return credentialShape(action.SetCredential, recipients)
	case *connectorv1.Operation_RevokeCredential:
		if action.RevokeCredential.GetKind() != "password" {
			return fmt.Sprintf("revokes a credential of kind %q; only password is known", action.RevokeCredential.GetKind())
		}
	}
	return ""
}

func createShape(create *connectorv1.Create, t *connectorv1.ObjectType, types []*connectorv1.ObjectType) string {
	if len(create.GetName().GetComponents()) == 0 {
		return "creates an object without a name"
	}
	for _, component := range create.GetName().GetComponents() {
		if len(component.GetParts()) == 0 {
			return "creates an object whose name has an empty component"
		}
	}
	seen := map[string]bool{}
	for _, attribute := range create.GetAttributes() {
		name := strings.ToLower(attribute.GetName())
		declared := t.AttributeType(name)
		naming := strings.EqualFold(name, t.GetNamingAttribute())
		switch {
		case declared == nil || declared.GetSecret() || declared.GetReadOnly() && !naming:
			return fmt.Sprintf("gives the attribute %q, which cannot be written", attribute.GetName())
		case seen[name]:
			return fmt.Sprintf("gives the attribute %q twice", attribute.GetName())
		case len(attribute.GetValues()) > 1 && !declared.GetMultiValued():
			return fmt.Sprintf("gives the attribute %q more than one value", attribute.GetName())
		}
		seen[name] = true
	}
	for _, ref := range create.GetMembers() {
		if (ref.GetAnchor() == "") == (ref.GetChange() == "") || ref.GetName() != nil {
			return "names a member otherwise than by one anchor or one change"
		}
		if !slices.ContainsFunc(types, func(t *connectorv1.ObjectType) bool { return t.GetName() == ref.GetType() }) {
			return fmt.Sprintf("names a member of the type %q, which the connector does not have", ref.GetType())
		}
	}
	return ""
}

func updateShape(update *connectorv1.Update, t *connectorv1.ObjectType) string {
	if len(update.GetDeltas()) == 0 {
		return "updates nothing"
	}
	seen := map[string]bool{}
	for _, d := range update.GetDeltas() {
		name := strings.ToLower(d.GetAttribute())
		declared := t.AttributeType(name)
		reference := declared.GetRule() == connectorv1.MatchingRule_MATCHING_RULE_REFERENCE
		values, refs := len(d.GetAdd())+len(d.GetRemove()), len(d.GetAddRefs())+len(d.GetRemoveRefs())
		switch {
		case declared == nil || declared.GetSecret() || declared.GetReadOnly():
			return fmt.Sprintf("writes the attribute %q, which cannot be written", d.GetAttribute())
		case seen[name]:
			return fmt.Sprintf("writes the attribute %q twice", d.GetAttribute())
		case reference && values > 0 || !reference && refs > 0 || values+refs == 0:
			return fmt.Sprintf("has values of the wrong kind, or none, for the attribute %q", d.GetAttribute())
		}
		seen[name] = true
	}
	return ""
}

func credentialShape(s *connectorv1.SetCredential, recipients interface{ Has(string) bool }) string {
	switch {
	case len(s.GetSecret()) > 0:
		return "carries a secret; secrets are made at the agent"
	case s.GetKind() != "password":
		return fmt.Sprintf("sets a credential of kind %q; only password is known", s.GetKind())
	case recipients == nil || !recipients.Has(s.GetRecipient()):
		return fmt.Sprintf("seals a secret to %q, which is not under recipients in agent.yaml", s.GetRecipient())
	case s.GetLength() != 0 && (s.GetLength() < secrets.MinPasswordLength || s.GetLength() > secrets.MaxPasswordLength):
		return fmt.Sprintf("asks for a password of %d characters; %d to %d are made", s.GetLength(), secrets.MinPasswordLength, secrets.MaxPasswordLength)
	}
	return ""
}
