-- An account's data besides gin-chat-demo's columns.
CREATE TABLE `tandem_account` (
  `user_id` bigint unsigned NOT NULL,
  `generation` int unsigned NOT NULL DEFAULT 0 COMMENT 'how often all tokens were ended',
  `tokens_since` bigint NOT NULL DEFAULT 0 COMMENT 'tokens without a version are good if they are younger (Unix seconds)',
  PRIMARY KEY (`user_id`)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4
