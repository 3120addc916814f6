// Package obligation sees to it that timed access ends: it wakes up when a hold
// falls due by the agent's own clock and has it taken back, for ever if need be,
// whether orders are paused or the control plane is lost. It also ticks the clock,
// and ends timed grants when the clock cannot be trusted.
//
// admission hands over holds through the journal; the removals themselves are
// executor's TakeBack.
package obligation
