// Package grant owns entitlements given by an act and not by a role: to whom,
// why, from when until when.
//
// Operators hand it acts; planning reads the grants that count at a moment and
// hands them to policy. The agent takes time-bound access back by itself; a grant
// that has passed only tells the planner not to give it again.
package grant
