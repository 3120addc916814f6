// Package trust is the control plane's own keys and what makes others believe
// them: its CA, plan key and checkpoint key in the data folder, and the root
// documents that name them.
//
// Root keys do not belong here. Request writes down what a root document should
// name, `reeve root init` signs it elsewhere, and Open refuses to run beside a
// readable root key unless asked for a development set-up, in which it makes one.
package trust
