// The engine of Redpanda Connect (Benthos), configured to do the work of ../peer and ../plugin: orders from a JetStream stream, an invoice
// for each. config.yaml says what is done, jetstream.go talks to NATS, the engine does the rest.
//
// usage: benthos run config.yaml, with NATS_URL, ORDERS (a stream) and INVOICES (a subject) in the environment
package main

import (
	"context"

	_ "github.com/redpanda-data/benthos/v4/public/components/pure"
	"github.com/redpanda-data/benthos/v4/public/service"
)

func main() {
	service.MustRegisterBatchInput("jetstream", inputFields, newInput)
	service.MustRegisterBatchOutput("jetstream", outputFields, newOutput)
	service.RunCLI(context.Background())
}
