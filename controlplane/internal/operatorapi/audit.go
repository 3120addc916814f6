package operatorapi

import (
	"bufio"
	"context"
	"strconv"

	"google.golang.org/grpc"

	"github.com/reevehq/reeve/controlplane/internal/tx"
	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
)

type audits struct {
	operatorv1.UnimplementedAuditServiceServer
	*Server
}

func (s audits) ListRecords(ctx context.Context, r *operatorv1.ListRecordsRequest) (*operatorv1.ListRecordsResponse, error) {
	if _, err := s.tenant(ctx, r.GetTenant()); err != nil {
		return nil, err
	}
	after, limit, err := page(r.GetPageSize(), r.GetPageToken())
	if err != nil {
		return nil, err
	}
	var from uint64
	if after != "" {
		last, err := strconv.ParseUint(after, 10, 64)
		if err != nil {
			return nil, errToken
		}
		from = last + 1
	}
	resp := new(operatorv1.ListRecordsResponse)
	return resp, s.view(ctx, func(t tx.Tx) error {
		entries, err := s.Log.Entries(t, r.GetTenant(), from, limit)
		if err != nil {
			return err
		}
		for _, e := range entries {
			resp.Records = append(resp.Records, &operatorv1.LogRecord{Index: e.Index, Agent: e.Agent, Header: e.Header, Body: e.Body})
			resp.NextPageToken = next(len(entries), limit, strconv.FormatUint(e.Index, 10))
		}
		return nil
	})
}

func (s audits) GetCheckpoint(ctx context.Context, r *operatorv1.GetCheckpointRequest) (*operatorv1.GetCheckpointResponse, error) {
	if _, err := s.tenant(ctx, r.GetTenant()); err != nil {
		return nil, err
	}
	c, err := s.Log.Checkpoint(ctx, r.GetTenant())
	return &operatorv1.GetCheckpointResponse{Checkpoint: c.Note}, err
}

// exportChunk is how much of an export one message carries.
const exportChunk = 256 << 10

func (s audits) ExportAudit(r *operatorv1.ExportAuditRequest, stream grpc.ServerStreamingServer[operatorv1.ExportAuditResponse]) error {
	ctx := stream.Context()
	if _, err := s.tenant(ctx, r.GetTenant()); err != nil {
		return err
	}
	w := bufio.NewWriterSize(exportWriter{stream}, exportChunk)
	if err := s.Log.Export(ctx, r.GetTenant(), w); err != nil {
		return err
	}
	return w.Flush()
}

type exportWriter struct {
	stream grpc.ServerStreamingServer[operatorv1.ExportAuditResponse]
}

// Write implements io.Writer.
func (w exportWriter) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		part := rest[:min(len(rest), exportChunk)]
		if err := w.stream.Send(&operatorv1.ExportAuditResponse{Data: part}); err != nil {
			return 0, err
		}
		rest = rest[len(part):]
	}
	return len(p), nil
}
