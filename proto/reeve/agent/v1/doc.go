// Package agentv1 is the wire between an agent and its control plane, and the
// bytes that both must build alike when a key proves itself (bindings).
package agentv1
