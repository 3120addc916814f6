// Package fakecontrolplane is a fake control plane for the agent's tests: real
// TLS with a real CA, a real root document and a real Merkle log, all in memory,
// and switches that lose answers, cut streams, show another history or go away.
// It decides nothing a control plane decides; what it was sent is there to look
// at.
package fakecontrolplane
