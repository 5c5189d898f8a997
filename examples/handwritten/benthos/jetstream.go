package main

import (
	"context"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/redpanda-data/benthos/v4/public/service"
)

const (
	// Orders asked for at once, and held unacknowledged at most: as many as the peer.
	pull          = 1_000
	maxAckPending = 16_384
)

var inputFields = service.NewConfigSpec().Fields(
	service.NewStringField("url"),
	service.NewStringField("stream"),
	service.NewStringField("durable"),
	service.NewIntField("batch").Description("How many messages are handed on together at most; none is waited for."),
)

// Reads a stream through a durable pull consumer. Headers become metadata.
type input struct {
	url, stream, durable string
	batch                int

	connection *nats.Conn
	consuming  jetstream.ConsumeContext
	messages   chan jetstream.Msg
}

func newInput(conf *service.ParsedConfig, _ *service.Resources) (service.BatchInput, error) {
	in := &input{messages: make(chan jetstream.Msg, pull)}
	for name, field := range map[string]*string{"url": &in.url, "stream": &in.stream, "durable": &in.durable} {
		var err error
		if *field, err = conf.FieldString(name); err != nil {
			return nil, err
		}
	}
	var err error
	if in.batch, err = conf.FieldInt("batch"); err != nil {
		return nil, err
	}
	return service.AutoRetryNacksBatched(in), nil
}

func (in *input) Connect(ctx context.Context) error {
	connection, js, err := connect(in.url)
	if err != nil {
		return err
	}
	in.connection = connection
	config := jetstream.ConsumerConfig{Durable: in.durable, MaxAckPending: maxAckPending}
	consumer, err := js.CreateOrUpdateConsumer(ctx, in.stream, config)
	if err != nil {
		return err
	}
	hand := func(message jetstream.Msg) { in.messages <- message }
	in.consuming, err = consumer.Consume(hand, jetstream.PullMaxMessages(pull))
	return err
}

func (in *input) ReadBatch(ctx context.Context) (service.MessageBatch, service.AckFunc, error) {
	var taken []jetstream.Msg
	select {
	case message := <-in.messages:
		taken = append(taken, message)
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	for len(taken) < in.batch && len(in.messages) > 0 {
		taken = append(taken, <-in.messages)
	}
	batch := make(service.MessageBatch, len(taken))
	for i, message := range taken {
		batch[i] = service.NewMessage(message.Data())
		for name, values := range message.Headers() {
			batch[i].MetaSetMut(name, values[0])
		}
	}
	return batch, acknowledge(taken), nil
}

func acknowledge(messages []jetstream.Msg) service.AckFunc {
	return func(_ context.Context, _ error) error {
		for _, message := range messages {
			if err := message.Ack(); err != nil {
				return err
			}
		}
		return nil
	}
}

func (in *input) Close(context.Context) error {
	if in.consuming != nil {
		in.consuming.Stop()
	}
	if in.connection != nil {
		in.connection.Close()
	}
	return nil
}

var outputFields = service.NewConfigSpec().Fields(
	service.NewStringField("url"),
	service.NewStringField("subject"),
	service.NewOutputMaxInFlightField().Description("How many batches wait for their confirmation at most."),
)

// Publishes to a subject of a stream and waits for the confirmations. Metadata become headers.
type output struct {
	url, subject string

	connection *nats.Conn
	js         jetstream.JetStream
}

func newOutput(conf *service.ParsedConfig, _ *service.Resources) (
	service.BatchOutput, service.BatchPolicy, int, error,
) {
	out, policy := &output{}, service.BatchPolicy{}
	var err error
	if out.url, err = conf.FieldString("url"); err != nil {
		return nil, policy, 0, err
	}
	if out.subject, err = conf.FieldString("subject"); err != nil {
		return nil, policy, 0, err
	}
	maxInFlight, err := conf.FieldMaxInFlight()
	return out, policy, maxInFlight, err
}

func (out *output) Connect(context.Context) (err error) {
	out.connection, out.js, err = connect(out.url)
	return err
}

func (out *output) WriteBatch(ctx context.Context, batch service.MessageBatch) error {
	stored := make([]jetstream.PubAckFuture, len(batch))
	for i, message := range batch {
		data, err := message.AsBytes()
		if err != nil {
			return err
		}
		published := nats.NewMsg(out.subject)
		published.Data = data
		_ = message.MetaWalk(func(name, value string) error {
			published.Header[name] = []string{value}
			return nil
		})
		if stored[i], err = out.js.PublishMsgAsync(published); err != nil {
			return err
		}
	}
	for _, stored := range stored {
		select {
		case <-stored.Ok():
		case err := <-stored.Err():
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (out *output) Close(context.Context) error {
	if out.connection != nil {
		out.connection.Close()
	}
	return nil
}

func connect(url string) (*nats.Conn, jetstream.JetStream, error) {
	connection, err := nats.Connect(url)
	if err != nil {
		return nil, nil, err
	}
	js, err := jetstream.New(connection, jetstream.WithPublishAsyncMaxPending(maxAckPending))
	return connection, js, err
}
