// Package operatorv1 is what the NOC uses: CLI, scripts and console, as gRPC and
// as REST (rest.yaml; OpenAPI in operator.swagger.json), with JSON that is safe to
// look at.
package operatorv1
