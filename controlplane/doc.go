// Package controlplane wires the control plane in the MSP's NOC: one place where
// every context gets its store, its clock and what it hands to.
//
// cmd/reeve-controlplane calls Run. Reading Serve from top to bottom follows a
// plan from what was observed to the record of its effect.
package controlplane
