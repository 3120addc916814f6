// Package admission decides whether an order is carried out, whole or not at all,
// before its first effect: who signed it, whether it is meant for this agent and
// comes in its turn and time, whether it is what was rehearsed and approved, and
// whether every change keeps within the client's guardrails on objects that the
// agent itself reads. What it admits becomes durable in one commit: the order with
// its chunks, its budget, its obligations.
//
// session hands over what arrived; executor takes over what was admitted. It
// stands on journal, guardrails and audit. Survey, which reads what guardrails
// judge, is used by executor again before each effect.
package admission
