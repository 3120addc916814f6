package pluginhost

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/reevehq/reeve/plugins/sdk"
	"github.com/reevehq/reeve/plugins/sdk/host"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// Ready waits until the connector is up, or says why it is not.
func (i *Instance) Ready(ctx context.Context) error {
	_, err := i.process(ctx)
	return err
}

// Version is the connector's version; empty until it was up once.
func (i *Instance) Version() string {
	if p := i.lastKnown(); p != nil {
		return p.version
	}
	return ""
}

// Types are the object types the instance has; none until it was up once. They
// are shared: read them only.
func (i *Instance) Types() []*connectorv1.ObjectType {
	if p := i.lastKnown(); p != nil {
		return p.types
	}
	return nil
}

// CaseRule is how names compare; unspecified until the connector was up once.
func (i *Instance) CaseRule() connectorv1.CaseRule {
	if p := i.lastKnown(); p != nil {
		return p.caseRule
	}
	return connectorv1.CaseRule_CASE_RULE_UNSPECIFIED
}

// Capabilities are what the instance can beyond the ordinary; none until it was
// up once. They are shared: read them only.
func (i *Instance) Capabilities() []connectorv1.Capability {
	if p := i.lastKnown(); p != nil {
		return p.capabilities
	}
	return nil
}

func (i *Instance) lastKnown() *process {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.known
}

// Groups reads every object of kind group in scope. It fails when any may be
// missing: what lies above a group must be known whole or not at all.
func (i *Instance) Groups(ctx context.Context) ([]*connectorv1.Object, error) {
	if err := i.Ready(ctx); err != nil {
		return nil, err
	}
	kinds := map[string]bool{}
	for _, t := range i.Types() {
		kinds[t.GetName()] = t.GetKind() == connectorv1.Kind_KIND_GROUP
	}
	var out []*connectorv1.Object
	end, err := i.Observe(ctx, func(objects []*connectorv1.Object) error {
		for _, o := range objects {
			if kinds[o.GetType()] {
				out = append(out, o)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if !end.GetComplete() {
		p := sdk.NewProblem(sdk.CodeServerError, i.spec.Alias, "read all groups", "correct what `reeve-agent connector check` shows, then send the order again").
			WithSaid("the directory could not be read whole")
		if len(end.GetProblems()) > 0 {
			p = p.WithSaid(sdk.FromProto(end.GetProblems()[0]).Error())
		}
		return nil, p
	}
	return out, nil
}

// Check proves the settings against the directory and keeps its fingerprint.
func (i *Instance) Check(ctx context.Context) (*connectorv1.CheckResponse, error) {
	var out *connectorv1.CheckResponse
	err := i.call(ctx, i.options.CallTimeout, func(ctx context.Context, p *process) (err error) {
		out, err = p.client.Check(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	cleanCheck(out)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.health.Reachable = out.GetReachable()
	i.health.Problems = out.GetProblems()
	if out.GetReachable() {
		i.health.Fingerprint = out.GetFingerprint()
	}
	return out, nil
}

// cleanCheck makes the directory's words safe to print and log.
func cleanCheck(c *connectorv1.CheckResponse) {
	c.Server, c.BoundAs = sdk.Clean(c.GetServer()), sdk.Clean(c.GetBoundAs())
	for _, r := range c.GetRights() {
		r.What, r.Where = sdk.Clean(r.GetWhat()), sdk.Clean(r.GetWhere())
	}
	for _, f := range c.GetFingerprint() {
		f.Name, f.Value = sdk.Clean(f.GetName()), sdk.Clean(f.GetValue())
	}
	for k, p := range c.GetProblems() {
		c.Problems[k] = sdk.FromProto(p).Proto()
	}
}

// Observe reads everything in scope, unfiltered; batch owns the objects it is
// given and its error is returned as it is. The end was checked by the host.
func (i *Instance) Observe(ctx context.Context, batch func([]*connectorv1.Object) error) (*connectorv1.ObserveEnd, error) {
	var end *connectorv1.ObserveEnd
	err := i.call(ctx, i.options.ObserveTimeout, func(ctx context.Context, p *process) (err error) {
		end, err = p.client.Observe(ctx, batch)
		return err
	})
	return end, err
}

// Changes reads what changed since cursor, unfiltered, as Observe does. A cursor
// that the directory does not know any more is a problem of code CURSOR_LOST.
func (i *Instance) Changes(ctx context.Context, cursor []byte, to host.Delta) (*connectorv1.ObserveEnd, error) {
	var end *connectorv1.ObserveEnd
	err := i.call(ctx, i.options.ObserveTimeout, func(ctx context.Context, p *process) (err error) {
		end, err = p.client.Changes(ctx, cursor, to)
		return err
	})
	return end, err
}

// Watch calls changed when it is ready and after each change until ctx or the
// connector's process ends. It has no bound: that nothing changes is no fault.
func (i *Instance) Watch(ctx context.Context, cursor []byte, changed func()) error {
	p, err := i.process(ctx)
	if err != nil {
		return err
	}
	return p.client.Watch(ctx, cursor, changed)
}

// Can reports whether the instance declared the capability when last up.
func (i *Instance) Can(c connectorv1.Capability) bool { return slices.Contains(i.Capabilities(), c) }

// Scope identifies what the instance reads and what of it is released: its
// settings, what it declares and agent.yaml's list. It is empty until the
// connector was up once.
func (i *Instance) Scope() string {
	known := i.lastKnown()
	if known == nil {
		return ""
	}
	h := sha256.New()
	fmt.Fprintf(h, "%q %q %q\n", i.spec.Connector, known.version, i.spec.Settings)
	for _, name := range slices.Sorted(maps.Keys(i.release)) {
		fmt.Fprintf(h, "%q\n", name)
	}
	for _, t := range known.types {
		encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(t)
		if err != nil {
			return "" // no text that came over the wire
		}
		fmt.Fprintf(h, "%q\n", encoded)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Read returns the present state of up to 100 objects, unfiltered, one result
// for each ref in order.
func (i *Instance) Read(ctx context.Context, refs []*connectorv1.ObjectRef) ([]*connectorv1.ReadResult, error) {
	var out []*connectorv1.ReadResult
	err := i.call(ctx, i.options.CallTimeout, func(ctx context.Context, p *process) (err error) {
		out, err = p.client.Read(ctx, refs)
		return err
	})
	return out, err
}

// Apply carries out operations. With an error come the results received before
// it; what has none may or may not have happened.
func (i *Instance) Apply(ctx context.Context, operations []*connectorv1.Operation) ([]*connectorv1.ApplyResult, error) {
	var out []*connectorv1.ApplyResult
	err := i.call(ctx, i.options.ApplyTimeout, func(ctx context.Context, p *process) (err error) {
		out, err = p.client.Apply(ctx, operations)
		return err
	})
	return out, err
}
