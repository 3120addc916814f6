// Package signing holds the plan key and turns an approved plan into an order's
// signed bytes. Nothing else in the control plane can sign an order.
package signing
