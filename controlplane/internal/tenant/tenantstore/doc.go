// Package tenantstore keeps tenant's rows in SQL. Only wiring imports it; it
// hands every query's outcome back in tenant's own types and errors.
package tenantstore
