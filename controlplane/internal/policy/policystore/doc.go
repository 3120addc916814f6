// Package policystore keeps bundles and says which tenant runs which version
// with what parameters. Package policy itself is pure; what is not stands here.
//
// Operators hand it bundles; planning asks it for a tenant's compiled program.
// A version never changes once stored: what was reviewed is what runs.
package policystore
