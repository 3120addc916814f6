// Package tenant owns the client organisations and the MSP itself, which is a
// tenant too: who they are, in which time zone their days end, and whether they
// are being served, handed back or gone.
//
// It is a foundation: operatorapi hands in new tenants, offboarding hands in
// the end of one, and every other context asks it whether a tenant is there.
// Lanes keep its bulk work out of every other's way, for agentapi and intake.
// What varies by tenant in policy is not here but with policy's binding.
package tenant
