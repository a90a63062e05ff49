// A client of Raccoon's in Go, as Raccoon's own Go client does its work: a message for each event, marshalled by
// google.golang.org/protobuf, written by gorilla/websocket, net/http or grpc-go, and each answer unmarshalled; with eight
// requests in flight, and nothing logged.
//
// It is told the transport and the server's URL, and on its standard input a SendEventRequest whose events it is to
// send, its length before it, and then again and again how many requests; all numbers are 4 bytes, little endian. When so
// many have a SUCCESS for an answer it writes the nanoseconds of CPU it has used so far, 8 bytes.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"raccoon.example/raccoonpb"
)

const (
	inFlight = 8
	path     = "/api/v1/events"
	method   = "/raystack.raccoon.v1beta1.EventService/SendEvent"
)

type event struct {
	kind string
	data []byte
}

// Sends so many requests, and returns when all are acknowledged.
type sender func(requests int)

func main() {
	events := readEvents()
	var send sender
	switch transport, url := os.Args[1], os.Args[2]; transport {
	case "REST":
		send = overREST(url, events)
	case "WebSocket":
		send = overWebSocket(url, events)
	case "gRPC":
		send = overGRPC(strings.TrimPrefix(url, "grpc://"), events)
	default:
		log.Fatalf("no such transport: %s", transport)
	}
	for {
		var requests uint32
		if err := binary.Read(os.Stdin, binary.LittleEndian, &requests); err == io.EOF {
			return
		} else {
			check(err)
		}
		send(int(requests))
		check(binary.Write(os.Stdout, binary.LittleEndian, cpu()))
	}
}

func overREST(url string, events []event) sender {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = inFlight
	client := &http.Client{Transport: transport}
	return allAtOnce(func() {
		guid, body := marshal(events)
		request, err := http.NewRequest("POST", url+path, bytes.NewReader(body))
		check(err)
		request.Header.Set("Content-Type", "application/proto")
		request.Header.Set("X-User-ID", "benchmark")
		response, err := client.Do(request)
		check(err)
		answer, err := io.ReadAll(response.Body)
		check(err)
		check(response.Body.Close())
		if response.StatusCode != http.StatusOK {
			log.Fatalf("status %d", response.StatusCode)
		}
		if acked(answer) != guid {
			log.Fatal("another request's answer")
		}
	})
}

func overWebSocket(url string, events []event) sender {
	connection, _, err := websocket.DefaultDialer.Dial(url+path, http.Header{"X-User-ID": {newGUID()}})
	check(err)
	var lock sync.Mutex
	pending := map[string]bool{}
	acks := make(chan bool, inFlight)
	go func() {
		for {
			_, answer, err := connection.ReadMessage()
			if err != nil {
				log.Fatal(err)
			}
			guid := acked(answer)
			lock.Lock()
			if !pending[guid] {
				log.Fatal("another connection's answer")
			}
			delete(pending, guid)
			lock.Unlock()
			acks <- true
		}
	}()
	return func(requests int) {
		for sent := 0; sent < requests; sent++ {
			if sent >= inFlight {
				<-acks
			}
			guid, message := marshal(events)
			lock.Lock()
			pending[guid] = true
			lock.Unlock()
			check(connection.WriteMessage(websocket.BinaryMessage, message))
		}
		for left := min(requests, inFlight); left > 0; left-- {
			<-acks
		}
	}
}

func overGRPC(target string, events []event) sender {
	connection, err := grpc.Dial(target, grpc.WithInsecure(), grpc.WithDefaultCallOptions(grpc.ForceCodec(codec{})))
	check(err)
	return allAtOnce(func() {
		request := build(events)
		ctx := metadata.AppendToOutgoingContext(context.Background(), "x-user-id", "benchmark")
		response := &raccoonpb.SendEventResponse{}
		check(connection.Invoke(ctx, method, request, response))
		if response.Status != raccoonpb.Status_STATUS_SUCCESS || response.Data["req_guid"] != request.ReqGuid {
			log.Fatal(response)
		}
	})
}

// As later releases of grpc-go have it; that of Debian 12 has one for messages of an older kind.
type codec struct{}

func (codec) Marshal(message interface{}) ([]byte, error) {
	return proto.Marshal(message.(proto.Message))
}

func (codec) Unmarshal(data []byte, message interface{}) error {
	return proto.Unmarshal(data, message.(proto.Message))
}

func (codec) Name() string { return "proto" }

func allAtOnce(send func()) sender {
	return func(requests int) {
		work := make(chan bool)
		var done sync.WaitGroup
		for range make([]bool, inFlight) {
			done.Add(1)
			go func() {
				for range work {
					send()
				}
				done.Done()
			}()
		}
		for ; requests > 0; requests-- {
			work <- true
		}
		close(work)
		done.Wait()
	}
}

func build(events []event) *raccoonpb.SendEventRequest {
	messages := []*raccoonpb.Event{}
	for _, one := range events {
		messages = append(messages, &raccoonpb.Event{EventBytes: one.data, Type: one.kind})
	}
	return &raccoonpb.SendEventRequest{ReqGuid: newGUID(), SentTime: timestamppb.Now(), Events: messages}
}

func marshal(events []event) (string, []byte) {
	request := build(events)
	message, err := proto.Marshal(request)
	check(err)
	return request.ReqGuid, message
}

func acked(answer []byte) string {
	response := &raccoonpb.SendEventResponse{}
	check(proto.Unmarshal(answer, response))
	if response.Status != raccoonpb.Status_STATUS_SUCCESS {
		log.Fatal(response)
	}
	return response.Data["req_guid"]
}

func newGUID() string {
	var id [16]byte
	_, err := rand.Read(id[:])
	check(err)
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}

func readEvents() []event {
	var size uint32
	check(binary.Read(os.Stdin, binary.LittleEndian, &size))
	message := make([]byte, size)
	_, err := io.ReadFull(os.Stdin, message)
	check(err)
	request := &raccoonpb.SendEventRequest{}
	check(proto.Unmarshal(message, request))
	events := []event{}
	for _, one := range request.Events {
		events = append(events, event{one.Type, one.EventBytes})
	}
	return events
}

func cpu() int64 {
	var usage syscall.Rusage
	check(syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return usage.Utime.Nano() + usage.Stime.Nano()
}

func min(a, b int) int {
	if a < b {
		return a
	}
	return b
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
