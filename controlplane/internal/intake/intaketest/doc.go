// Package intaketest is for tests: an Estate with a real database, CA, root
// document, log, enrolment and intake, and a FakeAgent that keeps a chain and
// signs batches as an agent's journal does. Everything in an Estate follows from
// a fixed seed and a clock that only tests move, so its exports are the same to
// the byte in every run.
//
// Tests of auditlog, enrollment, intake and agentapi use it; nothing else may.
package intaketest
