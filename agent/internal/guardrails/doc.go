// Package guardrails owns the client's own limits on what plans may do: what is
// in scope, which operations, which attributes and values, who is protected, how
// much at once, and what needs the client's signature. They are typed and deny by
// default: what no rule allows is refused. Parse reads them from a connector's
// guardrails in agent.yaml; nothing that arrives over the network changes them.
//
// It is pure: no directory, no clock, no journal. admission hands over what the
// agent read (Subject) when an order arrives, executor again before each effect;
// both get refusals that name the rule and the change. The connector is never
// asked to judge: names are matched here, part by part.
package guardrails
