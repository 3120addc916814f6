// Package sqlstore opens the control plane's database: pools, pragmas, migrations,
// and connections that keep the statements they compiled. Queries live with their
// contexts, in <context>/<context>store.
//
// Migrations stand in one folder a dialect and one file a context. They expand;
// what they replace is taken away one release later. A database that is newer
// than the binary is refused.
package sqlstore
