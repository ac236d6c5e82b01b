-- Ids may be as large as 2^63 - 1; the column was narrower.
ALTER TABLE `tandem_signed_out` MODIFY `user_id` bigint unsigned NOT NULL
